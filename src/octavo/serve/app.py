"""The web application: the API, the guard around it, errors in one shape."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from octavo import __version__
from octavo.config import written_path
from octavo.errors import OctavoError
from octavo.serve import login, metrics, pages
from octavo.serve.api import chat, completions, embeddings, models, responses
from octavo.serve.api.answer import ClientLeftError, JsonAnswer
from octavo.serve.config import ServeConfig
from octavo.serve.errors import ApiError, api_error
from octavo.serve.guard import Guard
from octavo.serve.service import Service

_CLIENT_LEFT = 499  # nginx's number; nobody reads it


def create_app(service: Service, config: ServeConfig) -> FastAPI:
    """The application. It starts the service with its event loop, and stops it at the end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    # Without FastAPI's own pages for the schema, which load their scripts from another host.
    app = FastAPI(title="Octavo", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.include_router(chat.routes(service))
    app.include_router(completions.routes(service))
    app.include_router(responses.routes(service))
    app.include_router(embeddings.routes(service))
    app.include_router(models.routes(service))
    app.include_router(metrics.routes(service))
    app.include_router(login.routes(config))
    if config.pages:
        pages.mount(app, service, config)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OctavoError, _refused)
    app.add_exception_handler(ClientLeftError, _left)
    app.add_exception_handler(Exception, _refused)
    app.add_middleware(Guard, config=config)
    app.add_middleware(
        CORSMiddleware, allow_origins=list(config.origins), allow_methods=["GET", "POST"], allow_headers=["*"]
    )
    return app


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _answer(ApiError(400, f"the request is not JSON: {first['ctx']['error']}", "invalid_json"))
    path = written_path(first["loc"][1:], error.body, keep_last=first["type"] == "missing")
    where = ".".join(path) or "the request body"
    text = first["msg"].replace("Input should", "should")
    return _answer(ApiError(400, f"{where}: {text[:500]}", "invalid_value", ".".join(path)[:200] or None))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {
        404: f"nothing is at {request.url.path[:200]}",
        405: f"{request.method} is not for {request.url.path[:200]}",
    }
    answer = _answer(ApiError(error.status_code, what.get(error.status_code, str(error.detail))))
    answer.headers.update(error.headers or {})
    return answer


async def _refused(request: Request, error: Exception) -> Response:
    return _answer(api_error(error))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


def _answer(error: ApiError) -> JsonAnswer:
    return JsonAnswer(error.body(), error.status, error.headers())
