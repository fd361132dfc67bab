"""Octavo: an open press for sparse reasoning models on an ordinary computer."""

__version__ = "0.1.0"
