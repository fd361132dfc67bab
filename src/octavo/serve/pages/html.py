"""Pages as HTML: templates that escape everything, headers that forbid a browser to load anything from elsewhere."""

import hashlib
from datetime import UTC, datetime
from importlib import resources
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from octavo.serve.pages.chart import figure
from octavo.serve.pages.language import COOKIE, Language, Languages

# Nothing but this server's own files, no script or style inside a page, no frame around it.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}


class Pages:
    """Renders templates and hands out static files."""

    def __init__(self) -> None:
        self.languages = Languages()
        self._templates = Environment(
            loader=PackageLoader("octavo.serve.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"figure": figure, "moment": moment, "link": link}
        folder = resources.files("octavo.serve.pages") / "static"
        self._files = {
            file.name: (file.read_bytes(), _TYPES[file.name.rpartition(".")[2]]) for file in folder.iterdir()
        }

    def language(self, request: Request) -> Language:
        """The language of whoever asks."""
        return self.languages.choose(request.cookies.get(COOKIE), request.headers.get("accept-language"))

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """A page in the language of whoever asks."""
        language = self.language(request)
        text = self._templates.get_template(template).render(
            t=language, languages=self.languages.all.values(), **values
        )
        # A file of a run may hold halves of characters (lone surrogates), which cannot be sent.
        return HTMLResponse(text.encode("utf-8", "replace"), status, HEADERS)

    def static(self, request: Request, name: str) -> Response | None:
        """A file of the package, by name; None where there is none."""
        if name not in self._files:
            return None
        content, kind = self._files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = HEADERS | {"ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)


def static_files(pages: Pages) -> APIRouter:
    """The route of what the pages look and work like."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name}")
    async def static(request: Request, name: str) -> Response:
        return pages.static(request, name) or Response("There is no such file.", 404, media_type="text/plain")

    return router


def link(name: str) -> str:
    """Address of a run's page."""
    return f"/runs/{quote(name)}"


def moment(seconds: float) -> str:
    """Seconds since 1970 as `2026-11-24 06:30 UTC`."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "?"
