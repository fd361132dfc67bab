"""`octavo run --watch`: the window on training beside the run, in a thread of the same process."""

import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from octavo.errors import ConfigError

HOST, PORT = "127.0.0.1", 8800
_PATIENCE_SECONDS = 10.0


@contextmanager
def watching(root: Path, open_browser: bool = True) -> Iterator[str]:
    """Serve the pages of /runs over the run folders under `root` while the body runs; gives their address.

    Raises ConfigError where the libraries are missing that it takes.
    """
    try:
        import uvicorn

        from octavo.serve.pages.app import window_app
    except ImportError as error:
        raise ConfigError(f"--watch needs {error.name}: pip install 'octavo[serve]'") from error

    listener = _listen()
    server = uvicorn.Server(
        uvicorn.Config(window_app(root), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"http://{HOST}:{listener.getsockname()[1]}/runs"
    try:
        if open_browser and _has_screen():
            webbrowser.open(address)
        yield address
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_SECONDS)
        listener.close()


def _listen() -> socket.socket:
    """On the usual port, so that an open page finds the next run too; on any other where that is taken."""
    try:
        return socket.create_server((HOST, PORT))
    except OSError:
        return socket.create_server((HOST, 0))


def _has_screen() -> bool:
    """Whether there is a graphical browser to open; one for terminals would draw over what the run says."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
