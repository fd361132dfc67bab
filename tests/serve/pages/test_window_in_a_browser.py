"""A person's way through the window on training, in a real browser."""

import signal
import subprocess
import sys

import pytest

from browsing import PHONE, sideways
from made_run import make_run, rl_row, rollout
from octavo.storage import append_jsonl
from octavo.watch import watching

HOLDER = """
import sys, time
from pathlib import Path
from octavo.runlock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path / "runs" / "done", finished=True)
    run = make_run(tmp_path / "runs" / "half")
    append_jsonl(run.stage("rl").rollouts, [rollout(step) for step in range(7, 40)])
    return tmp_path / "runs"


def test_on_a_desktop_in_english(root, open_window, keep_picture):
    with watching(root, open_browser=False) as address:
        page = open_window(address)
        keep_picture(page, "runs-desktop-en")
        page.get_by_role("link", name="half").click()
        page.get_by_role("heading", name="rl grpo").wait_for()
        keep_picture(page, "run-desktop-en")

        # The pointer and the arrow keys tell the numbers of a curve.
        chart = page.get_by_role("img", name="Reward: reward 0.6")
        told = page.locator("#chart-reward output")
        chart.scroll_into_view_if_needed()
        chart.hover(position={"x": chart.bounding_box()["width"] - 12, "y": 50})
        assert told.text_content() == "step 6: 0.6"
        page.mouse.move(0, 0)
        assert told.text_content() == ""
        chart.focus()
        page.keyboard.press("ArrowLeft")
        assert told.text_content() == "step 5: 0.5"
        page.get_by_role("heading", name="tiny").click()
        page.evaluate("document.activeElement.blur()")

        # What training writes is seen without loading the page again; what was opened stays open.
        page.get_by_text("What it was made from").click()
        append_jsonl(root / "half" / "rl" / "metrics.jsonl", [rl_row(7)])
        page.get_by_text("7 / 10").wait_for()
        page.get_by_role("img", name="Reward: reward 0.7").wait_for()
        assert page.locator("#manifest").get_attribute("open") is not None

        # Completions back to the first one, and another stage.
        page.get_by_role("link", name="Older").click()
        page.get_by_role("link", name="Newest").wait_for()
        page.get_by_role("navigation", name="Stages").get_by_role("link", name="base").click()
        page.get_by_role("heading", name="base pretrain").wait_for()
        page.get_by_role("button", name="Light or dark").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.get_by_label("Language").select_option("ru")
        page.get_by_role("heading", name="Этапы").wait_for()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        keep_picture(page, "run-desktop-dark-ru")


def test_on_a_phone_in_russian(root, open_window, keep_picture):
    with watching(root, open_browser=False) as address:
        page = open_window(address, PHONE, "ru-RU")
        assert page.get_by_role("heading", name="Запуски").is_visible()
        assert sideways(page) == 0
        keep_picture(page, "runs-phone-ru")
        page.get_by_role("link", name="done").click()
        page.get_by_role("link", name="eval-rl").click()
        page.get_by_text("Ответы (задач: 1 из 1)").click()
        page.get_by_text("What is 1 + 2?").wait_for()
        assert sideways(page) == 0
        keep_picture(page, "run-phone-ru")


def test_by_keyboard_alone(root, open_window):
    with watching(root, open_browser=False) as address:
        page = open_window(address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("navigation", name="You are here").wait_for()


def test_a_run_is_stopped_from_the_page(root, open_window):
    lock = root / "half" / ".lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with watching(root, open_browser=False) as address:
            page = open_window(f"{address}/half")
            page.get_by_text(f"process {process.pid}").wait_for()
            page.get_by_role("button", name="Stop").click()
            page.get_by_role("button", name="Resume").wait_for()
            assert process.wait(10) == -signal.SIGTERM
            page.locator("h1 .interrupted").wait_for()


def test_a_page_says_that_its_server_is_gone(root, open_window, troubles):
    with watching(root, open_browser=False) as address:
        page = open_window(f"{address}/half")
    page.get_by_text("The server does not answer").wait_for()
    assert all("ERR_CONNECTION_REFUSED" in trouble for trouble in troubles)
    troubles.clear()
