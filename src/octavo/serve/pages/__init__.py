"""The pages of a server: chat at /, the window on training at /runs, as HTML made here."""

from pathlib import Path

from fastapi import FastAPI

from octavo.serve.config import ServeConfig
from octavo.serve.pages.chat import chat_routes
from octavo.serve.pages.html import Pages, static_files
from octavo.serve.pages.rows import KeptRows
from octavo.serve.pages.window import window_routes
from octavo.serve.service import Service


def mount_window(app: FastAPI, config: ServeConfig, pages: Pages | None = None) -> None:
    """Add the window on training to a server; without `pages`, which has the chat page too, it stands alone."""
    made = pages or Pages()
    app.include_router(static_files(made))
    app.include_router(window_routes(Path(config.runs), made, has_chat=pages is not None))


def mount(app: FastAPI, service: Service, config: ServeConfig) -> None:
    """Add all pages to a server of models."""
    pages = Pages()
    rows = KeptRows(Path(config.save_rows)) if config.save_rows else None
    app.include_router(chat_routes(service, pages, rows, has_runs=True))
    mount_window(app, config, pages)
