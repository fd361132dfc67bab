"""POST /v1/embeddings, for models that make them."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from octavo.serve.api.answer import JsonAnswer, while_connected
from octavo.serve.api.completions import Ids
from octavo.serve.api.fields import Body, Name, Text
from octavo.serve.errors import ApiError
from octavo.serve.service import Service

_MOST_INPUTS = 2048


class EmbeddingBody(Body):
    """Texts to be made vectors of."""

    model: Name
    input: Text | Ids | Annotated[list[Text] | list[Ids], Field(min_length=1, max_length=_MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    """Other than all is not supported."""

    def inputs(self) -> list[str | tuple[int, ...]]:
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [tuple(id_ for id_ in self.input if isinstance(id_, int))]
        return [text if isinstance(text, str) else tuple(text) for text in self.input if not isinstance(text, int)]


def routes(service: Service) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.post("/v1/embeddings", tags=["embeddings"])
    async def embeddings(body: EmbeddingBody, request: Request) -> Response:
        """One vector for each text."""
        made = await while_connected(request, service.embed(body.model, body.inputs()))
        width = len(made[0].vector_D)
        if body.dimensions not in (None, width):
            raise ApiError(400, f"dimensions: this model makes {width}", "unsupported", "dimensions")
        tokens = sum(each.prompt_tokens for each in made)
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(each.vector_D, body.encoding_format)}
            for index, each in enumerate(made)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JsonAnswer({"object": "list", "data": data, "model": body.model, "usage": usage})

    return router


def _encoded(vector_D: list[float], encoding: str | None) -> Any:
    if encoding == "base64":
        return base64.b64encode(np.asarray(vector_D, "<f4").tobytes()).decode()
    return vector_D
