"""The window on training by itself, without models: what `octavo run --watch` shows while it works."""

from pathlib import Path

from fastapi import FastAPI

from octavo.serve.config import ServeConfig
from octavo.serve.guard import Guard
from octavo.serve.pages import mount_window


def window_app(root: Path) -> FastAPI:
    """The pages of /runs over the run folders under `root`, for a browser on this machine."""
    config = ServeConfig(runs=str(root))
    app = FastAPI(title="Octavo", openapi_url=None)
    mount_window(app, config)
    app.add_middleware(Guard, config=config)
    return app
