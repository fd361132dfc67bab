"""Worked solutions: text to learn from. `write` is the entrance; a module per task derives the steps."""

from octavo.tasks.solutions.writer import STYLES, Language, Solution, Style, notation, solvable, write

__all__ = ["STYLES", "Language", "Solution", "Style", "notation", "solvable", "write"]
