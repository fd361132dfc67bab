"""The page on which a browser shows the key once, and gets a cookie for it."""

import asyncio
import html
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from octavo.serve.config import ServeConfig
from octavo.serve.guard import COOKIE, same_secret, session_of

_DELAY_SECONDS = 1.0
"""Before a wrong key is answered."""
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Octavo</title>
<style>body{{font:1rem system-ui;margin:4rem auto;max-width:20rem}}
input,button{{font:inherit;width:100%;margin:.3rem 0}}</style>
<form method="post" action="/login?next={next}"><label for="key">API key of this server</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Enter</button><p role="alert">{message}</p></form></html>
"""


def routes(config: ServeConfig) -> APIRouter:
    """The page and what it sends to; none where there is no key."""
    router = APIRouter(include_in_schema=False)
    key = config.api_key
    if key is None:
        return router

    @router.get("/login")
    async def page(request: Request) -> Response:
        return _page(request, "")

    @router.post("/login")
    async def enter(request: Request) -> Response:
        given = parse_qs((await request.body()).decode("utf-8", "replace")).get("key", [""])[0]
        if not same_secret(given.strip(), key):
            await asyncio.sleep(_DELAY_SECONDS)
            return _page(request, "This is not the key.", 401)
        answer = RedirectResponse(_next(request), 303)
        answer.set_cookie(
            COOKIE, session_of(key), httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer

    return router


def _page(request: Request, message: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(next=html.escape(_next(request), quote=True), message=message), status)


def _next(request: Request) -> str:
    """Where to go on: a path of this server, and nothing else."""
    path = urlsplit(request.query_params.get("next", "/").replace("\\", "/")).path
    return "/" + path.lstrip("/")
