"""A server process: its settings checked, its address told, its end awaited."""

import asyncio
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from octavo.errors import ConfigError
from octavo.serve.config import ServeConfig, ServiceConfig

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def run(paths: Mapping[str, Path], service: ServiceConfig, config: ServeConfig) -> None:
    """Serve until told to stop, then finish what runs. Raises ConfigError."""
    check_reach(config)
    try:
        import uvicorn

        from octavo.serve.app import create_app
        from octavo.serve.metrics import Metrics
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is missing; the server's parts come with: pip install 'octavo[serve]'"
        ) from error
    from octavo.serve.service import Service

    app = create_app(Service(paths, service, Metrics()), config)
    listener = _listen(config)
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=config.shutdown_seconds,
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Serving {', '.join(paths) or 'no model'} at http://{shown}:{port}. Ctrl-C stops.", flush=True)
    if paths:
        print(f"Programs that speak OpenAI's API: base URL http://{shown}:{port}/v1", flush=True)
    if config.pages and paths:
        print(f"To talk to it in a browser: http://{shown}:{port}", flush=True)
    if config.pages:
        print(f"The window on training, over {config.runs}: http://{shown}:{port}/runs", flush=True)
    try:
        asyncio.run(uvicorn.Server(settings).serve([listener]))
    except KeyboardInterrupt:
        print("Stopped.")


def check_reach(config: ServeConfig) -> None:
    """Raise ConfigError where other machines could come in unasked."""
    if is_loopback(config.host) or config.api_key is not None or config.insecure:
        return
    raise ConfigError(
        f"--host {config.host} lets other machines in: give a key (--api-key-file), or say --insecure if everybody who "
        "reaches this address may use it"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_key(file: Path | None, variable: str) -> str | None:
    """The key out of a file, or else of the environment. (An argument would be seen by all users of the machine.)

    Raises ConfigError.
    """
    if file is None:
        key, where = os.environ.get(variable), variable
    else:
        try:
            key, where = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: the key cannot be read: {error}") from error
    if key is not None and (not key.isascii() or not key.isprintable() or len(key) < 8):
        raise ConfigError(f"{where}: expected a key of at least 8 printable ASCII characters")
    return key


def size_in_bytes(text: str, where: str) -> int:
    """`8GB`, `512M`, `1.5 GiB` in bytes (powers of 1024). Raises ConfigError."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not size:
        raise ConfigError(f"{where}: expected a size as 8GB or 512MB, got {text!r}")
    return size


def _listen(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        where = f"{config.host}:{config.port}"
        raise ConfigError(f"{where}: cannot listen there: {error.strerror or error} (another one: --port)") from error
    return listener
