"""A browser as people use one: Debian's chromium, driven by playwright. Where there is none, its tests are skipped."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browsing import CHROMIUM, DESKTOP, FLAGS


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """The browser. The tests of a page open windows of their own in it.

    Not for the whole session: while playwright runs, no test can start an event loop of its own.
    """
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def troubles() -> list[str]:
    """What went wrong in windows; a test that wants it to may clear it."""
    return []


@pytest.fixture
def open_window(chromium, troubles) -> Iterator[Callable]:
    """Opens a window on `address`, of a size and in a language, and watches it: afterwards, its console must be
    silent, and it must have asked nobody but the server."""
    windows = []

    def failed(request) -> None:
        if request.failure != "net::ERR_ABORTED":  # as when somebody stops a reply, or leaves the page
            troubles.append(f"failed: {request.url}: {request.failure}")

    def open_at(address: str, size: dict = DESKTOP, language: str = "en", scheme: str = "light"):
        host = "/".join(address.split("/", 3)[:3])
        context = chromium.new_context(viewport=size, locale=language, color_scheme=scheme)
        context.set_default_timeout(20_000)
        page = context.new_page()
        windows.append(context)
        page.on("console", lambda message: troubles.append(f"console: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: request.url.startswith(host) or troubles.append(f"asked {request.url}"))
        page.on("requestfailed", failed)
        page.goto(address)
        return page

    yield open_at
    seen = list(troubles)  # the test's server has ended: what a window asks for from now on does not count
    for context in windows:
        context.close()
    assert seen == []


@pytest.fixture
def keep_picture(tmp_path) -> Callable:
    """Keeps a picture of a page, in the folder that OCTAVO_SCREENSHOTS names or else in the test's own."""

    def keep(page, name: str) -> None:
        folder = Path(os.environ.get("OCTAVO_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)

    return keep
