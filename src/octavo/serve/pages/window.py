"""The window on training, at /runs: every run folder under a root, as it stands on disk at each request.

The page is whole HTML; its script asks for it again every few seconds and replaces the sections that have changed. A
run's name is looked up among the runs that were found, a stage's among the run's stages: nothing of a request becomes a
path. Runs are stopped and taken up only from this machine, with the token that the page was given.
"""

import hmac
import ipaddress
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from octavo.errors import OctavoError
from octavo.rundir import RunDir
from octavo.serve.pages import chart
from octavo.serve.pages.html import Pages, link
from octavo.serve.runs.completions import Page, read_evaluation, read_page
from octavo.serve.runs.control import Controls
from octavo.serve.runs.curves import Curves, read_curves
from octavo.serve.runs.files import Memory
from octavo.serve.runs.listing import find_runs
from octavo.serve.runs.view import StageView, read_run

_MOST_MANIFEST_CHARACTERS = 50_000
_BOX = {
    "width": chart.WIDTH,
    "height": chart.HEIGHT,
    "left": chart.LEFT,
    "right": chart.RIGHT,
    "top": chart.TOP,
    "bottom": chart.BOTTOM,
}

T = TypeVar("T")


@dataclass(frozen=True)
class Window:
    """What the pages of /runs need."""

    root: Path
    pages: Pages
    has_chat: bool
    memory: Memory
    controls: Controls
    token: str
    """Proves that a form comes from a page of this server."""


def window_routes(root: Path, pages: Pages, has_chat: bool) -> APIRouter:
    """The routes of /runs, over the run folders under `root`."""
    made = Window(root, pages, has_chat, Memory(), Controls(), secrets.token_urlsafe(32))
    router = APIRouter(include_in_schema=False)

    @router.get("/runs/")
    def slash() -> Response:
        return RedirectResponse("/runs", status_code=308)

    # Reading files blocks, so these are plain functions: they run in threads.
    @router.get("/runs")
    def runs(request: Request) -> Response:
        return _runs(made, request)

    @router.get("/runs/{name:path}")
    def run(
        request: Request,
        name: str,
        stage: Annotated[str | None, Query(max_length=200)] = None,
        before: Annotated[int | None, Query(ge=0, le=1 << 60)] = None,
    ) -> Response:
        return _run(made, request, name, stage, before)

    @router.post("/runs/{name:path}/stop")
    def stop(request: Request, name: str, token: Annotated[str, Form(max_length=200)] = "") -> Response:
        return _control(made, request, name, token, made.controls.stop)

    @router.post("/runs/{name:path}/resume")
    def resume(request: Request, name: str, token: Annotated[str, Form(max_length=200)] = "") -> Response:
        return _control(made, request, name, token, made.controls.resume)

    return router


def _runs(made: Window, request: Request) -> Response:
    trouble, found = "", []
    try:
        found = [read_run(name, run, made.memory) for name, run in find_runs(made.root).items()]
    except OctavoError as error:
        trouble = str(error)
    found.sort(key=lambda run: (run.status != "running", -(run.changed_at or 0)))
    return _page(made, request, "runs.html", found=found, trouble=trouble)


def _run(made: Window, request: Request, name: str, stage: str | None, before: int | None) -> Response:
    run = _find(made, name)
    if run is None:
        return _nothing(made, request, name)
    view = read_run(name, run, made.memory)
    shown = next((each for each in view.stages if each.name == stage), view.current)
    problems: list[str] = []

    def take(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except OctavoError as error:
            problems.append(str(error).replace(f"{run.path}/", ""))
            return otherwise

    curves, page, evaluated = Curves((), True, 0), Page(), None
    if shown:
        folder = run.stage(shown.name)
        curves = take(lambda: made.memory.made(folder.metrics, read_curves), curves)
        page = take(lambda: read_page(folder, before), page)
        evaluated = take(lambda: made.memory.made(folder.evaluation, read_evaluation), None)
    return _page(
        made,
        request,
        "run.html",
        run=view,
        shown=shown,
        before=before,
        curves=curves,
        drawings=[chart.draw(each) for each in curves.charts],
        box=_BOX,
        page=page,
        evaluated=evaluated,
        problems=problems,
        manifest_text=_manifest_text(shown),
        controls=_is_near(request),
        start=made.controls.started(run),
        token=made.token,
    )


def _control(made: Window, request: Request, name: str, token: str, act: Callable[[RunDir], int]) -> Response:
    """Stop a run or take it up, for a page of this server that is shown on this machine; then show the run again."""
    t = made.pages.language(request)
    if not _is_near(request) or not hmac.compare_digest(token.encode(), made.token.encode()):
        return _page(made, request, "nothing.html", 403, heading=t("refused"), sentence=t("refused.why"))
    run = _find(made, name)
    if run is None:
        return _nothing(made, request, name)
    try:
        act(run)
    except OctavoError as error:
        return _page(made, request, "nothing.html", 409, heading=t("not.done"), sentence=str(error))
    return RedirectResponse(link(name), status_code=303)


def _find(made: Window, name: str) -> RunDir | None:
    try:
        return find_runs(made.root).get(name)
    except OctavoError:
        return None


def _nothing(made: Window, request: Request, name: str) -> Response:
    t = made.pages.language(request)
    return _page(
        made, request, "nothing.html", 404, heading=t("not.found"), sentence=t("not.found.run", name=name[:200])
    )


def _page(made: Window, request: Request, template: str, status: int = 200, **values: object) -> Response:
    return made.pages.page(request, template, status, chat=made.has_chat, runs=True, here="runs", **values)


def _is_near(request: Request) -> bool:
    """Whether the request comes from this machine."""
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _manifest_text(shown: StageView | None) -> str:
    """What a stage was made from and what it made, to read."""
    if shown is None or shown.manifest is None:
        return ""
    told = shown.manifest.dump()
    kept = {name: told[name] for name in ("fingerprint", "inputs", "outputs", "versions", "config")}
    return json.dumps(kept, indent=2, ensure_ascii=False)[:_MOST_MANIFEST_CHARACTERS]
