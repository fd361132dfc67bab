"""GET /v1/models, GET /v1/models/NAME, GET /health."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from octavo.serve.api.answer import JsonAnswer
from octavo.serve.pool import ModelInfo
from octavo.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The endpoints."""
    router = APIRouter()

    @router.get("/v1/models", tags=["models"])
    async def models() -> Response:
        """The models that are served."""
        return JsonAnswer({"object": "list", "data": [_model(info) for info in service.models()]})

    @router.get("/v1/models/{name:path}", tags=["models"])
    async def model(name: str) -> Response:
        """One of them."""
        return JsonAnswer(_model(service.model(name)))

    @router.get("/health", tags=["server"])
    async def health() -> Response:
        """Whether the server answers at all."""
        return JsonAnswer({"status": "ok"})

    return router


def _model(info: ModelInfo) -> dict[str, Any]:
    return {
        "id": info.name,
        "object": "model",
        "created": 0,
        "owned_by": "octavo",
        "state": info.state,
        "error": info.error or None,
        "context_tokens": info.context_tokens,
        "parameters": info.parameters,
    }
