"""The pages of a server: the window on training at /runs, as HTML made here."""

from pathlib import Path

from fastapi import FastAPI

from octavo.serve.config import ServeConfig
from octavo.serve.pages.html import Pages, static_files
from octavo.serve.pages.window import window_routes


def mount(app: FastAPI, config: ServeConfig) -> None:
    """Add the pages to a server."""
    pages = Pages()
    app.include_router(static_files(pages))
    app.include_router(window_routes(Path(config.runs), pages, has_chat=False))
