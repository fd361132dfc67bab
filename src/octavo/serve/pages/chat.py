"""The chat page, at /. Conversations stay in the browser; replies come by the server's own API.

The page is a shell; its script (static/chat.js) talks to /v1/chat/completions, asks here for replies as HTML, and
hands in answers that are to be kept as rows to learn from, where the server was given a file for them.
"""

import hmac
import json
import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from octavo.serve.api.answer import JsonAnswer
from octavo.serve.api.fields import Body
from octavo.serve.errors import ApiError
from octavo.serve.pages.html import Pages
from octavo.serve.pages.markdown import as_html
from octavo.serve.pages.rows import KeptRows
from octavo.serve.service import Service


class Written(Body):
    """What a model has written so far."""

    text: Annotated[str, Field(max_length=1_000_000)]


class Kept(Body):
    """A conversation whose last answer is good."""

    token: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=4096)]


def chat_routes(service: Service, pages: Pages, rows: KeptRows | None, has_runs: bool) -> APIRouter:
    """The page and what its script asks for."""
    router = APIRouter(include_in_schema=False)
    token = secrets.token_urlsafe(32)

    @router.get("/")
    def page(request: Request) -> Response:
        models = [info.name for info in service.models()]
        texts = {key: text for key, text in pages.language(request).texts.items() if key.startswith(("chat.", "unit."))}
        told = {"models": models, "keeps": rows is not None, "token": token, "texts": texts}
        return pages.page(
            request, "chat.html", chat=True, runs=has_runs, here="chat", models=models, told=json.dumps(told)
        )

    @router.post("/page/html")
    def html(written: Written) -> Response:
        return JsonAnswer({"html": as_html(written.text)})

    @router.post("/page/keep")
    def keep(kept: Kept) -> Response:
        if not hmac.compare_digest(kept.token.encode("utf-8", "replace"), token.encode()):
            raise ApiError(403, "the page is from another start of the server: load it again", "wrong_token")
        if rows is None:
            raise ApiError(404, "the server was given no file for rows (octavo serve --save-rows FILE)", "no_file")
        rows.add(kept.messages)
        return JsonAnswer({"kept": True})

    return router
