"""The command line: one verb, one function, a file for each group of verbs. Heavy rooms are imported inside the
functions that use them, so that --help is quick."""

from octavo.cli.entry import exit_code_of, main

__all__ = ["exit_code_of", "main"]
