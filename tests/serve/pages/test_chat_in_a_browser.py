"""A person's way through the chat page, in a real browser; the models speak from a script, through the whole server."""

import asyncio
import json
import re
from contextlib import contextmanager
from pathlib import Path

from browsing import PHONE, live, sideways
from octavo.serve.app import create_app
from octavo.serve.calls import ChatCall, Delta, End, Usage
from octavo.serve.config import ServeConfig
from octavo.serve.errors import ApiError
from octavo.serve.service import Service

SCRIPT = {
    "formula": (("I should ", "set a formula."), ("The **square** is \\(x^2\\).\n\n```python\n", "def f(): ...\n```")),
    "evil": ((), ("<script>alert(1)</script> ![p](https://example.org/p.png)",)),
    "long": ((), ("more ",) * 2000),
}


class Scripted(Service):
    """Speaks from SCRIPT, by the last word of the question; what it is asked is kept."""

    def __init__(self, paths: dict[str, Path]) -> None:
        super().__init__(paths)
        self.asked: list[ChatCall] = []
        self.refusals = 0

    async def chat(self, call: ChatCall):
        self.asked.append(call)
        if self.refusals:
            self.refusals -= 1
            raise ApiError(429, "too many requests are waiting")
        reasoning, content = SCRIPT.get(call.messages[-1].content.split()[-1], ((), (f"I am {call.model}.",)))
        for piece in reasoning:
            yield Delta(0, reasoning=piece)
            await asyncio.sleep(0.02)
        for piece in content:
            yield Delta(0, content=piece)
            await asyncio.sleep(0.02)
        yield Delta(0, end=End("stop", Usage(7, len(reasoning) + len(content), len(reasoning))))


@contextmanager
def server(tmp_path, service: Scripted | None = None, **config):
    """Its address."""
    service = service or Scripted({"one": tmp_path / "one", "two": tmp_path / "two"})
    settings = ServeConfig(runs=str(tmp_path / "runs"), save_rows=str(tmp_path / "kept.jsonl"), **config)
    with live(create_app(service, settings)) as address:
        yield address


def ask(page, question: str) -> None:
    page.get_by_role("textbox", name="Your message").fill(question)
    page.keyboard.press("Enter")


def test_on_a_desktop_in_english(tmp_path, open_window, keep_picture):
    service = Scripted({"one": tmp_path / "one", "two": tmp_path / "two"})
    with server(tmp_path, service) as address:
        page = open_window(address)
        ask(page, "Show a formula")
        page.get_by_text("Reasoned for").wait_for()
        reply = page.locator(".reply")
        reply.get_by_role("button", name="Retry").wait_for()
        page.locator(".reply pre .k").wait_for()
        assert page.locator(".reply math msup").text_content() == "x2"
        assert page.locator(".reply strong").text_content() == "square"
        assert re.search(r"one · 4 tokens · [\d.]+ tokens/s", page.locator(".reply .facts").text_content())
        assert not page.get_by_text("I should set a formula.").is_visible()
        page.get_by_text("Reasoned for").click()
        assert page.get_by_text("I should set a formula.").is_visible()

        # Two models side by side; each is told its own side of the conversation.
        page.get_by_label("Beside it").select_option("two")
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("System prompt").fill("Be brief.")
        page.get_by_label("Temperature").fill("0.1")
        page.get_by_role("button", name="Settings").click()
        ask(page, "Who are you?")
        page.get_by_text("I am one.").wait_for()
        page.get_by_text("I am two.").wait_for()
        keep_picture(page, "chat-desktop-en")
        calls = {call.model: call for call in service.asked[1:]}
        assert [message.role for message in calls["two"].messages] == ["system", "user", "assistant", "user"]
        assert calls["two"].messages[0].content == "Be brief."
        assert calls["one"].sampling.temperature == 0.1

        # Correct an answer, and keep it to learn from.
        second = page.locator(".reply").nth(2)
        second.get_by_role("button", name="Correct").click()
        page.get_by_label("Answer").fill("I am Octavo.")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("I am Octavo.").wait_for()
        second.get_by_role("button", name="Keep to learn from").click()
        second.get_by_role("button", name="Kept").wait_for()
        row = json.loads((tmp_path / "kept.jsonl").read_text())
        assert [turn["content"] for turn in row["messages"][-2:]] == ["Who are you?", "I am Octavo."]

        # Edit the first question: what came after it goes.
        page.get_by_label("Beside it").select_option("")
        page.locator(".question").first.hover()
        page.get_by_role("button", name="Edit").first.click()
        page.locator(".editor textarea").fill("Say something evil")
        page.get_by_role("button", name="Save").click()
        page.get_by_text("<script>alert(1)</script>").wait_for()
        page.get_by_role("link", name="p", exact=True).wait_for()  # a picture would have asked another host
        assert page.locator(".reply").count() == 1

        # It is all there again after loading, and another conversation beside it.
        page.reload()
        page.get_by_text("<script>alert(1)</script>").wait_for()
        page.get_by_role("button", name="New conversation").first.click()
        page.get_by_text("Ask something.").wait_for()
        page.get_by_role("button", name="Show a formula", exact=True).click()
        page.get_by_text("<script>alert(1)</script>").wait_for()
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete: Show a formula").click()
        page.get_by_text("Ask something.").wait_for()
        assert page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('octavo.chat.'))") == []


def test_a_reply_is_stopped(tmp_path, open_window):
    with server(tmp_path) as address:
        page = open_window(address)
        ask(page, "Something long")
        page.get_by_text("more more").wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("one · stopped").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        length = len(page.locator(".reply .text").text_content())
        page.wait_for_timeout(300)
        assert len(page.locator(".reply .text").text_content()) == length < 5 * 2000


def test_on_a_phone_in_russian(tmp_path, open_window, keep_picture):
    with server(tmp_path) as address:
        page = open_window(address, PHONE, "ru-RU", scheme="dark")
        page.get_by_role("textbox", name="Ваше сообщение").fill("Покажи формулу: formula")
        page.get_by_role("button", name="Отправить").click()
        page.get_by_text("Рассуждение заняло").wait_for()
        page.get_by_role("button", name="Повторить").wait_for()
        assert sideways(page) == 0
        keep_picture(page, "chat-phone-ru")
        page.get_by_role("button", name="Беседы").click()
        page.get_by_role("button", name="Новая беседа").first.click()
        page.get_by_text("Спросите что-нибудь.").wait_for()
        page.get_by_role("button", name="Настройки").click()
        assert sideways(page) == 0
        page.get_by_role("link", name="Запуски").click()
        page.get_by_text("Здесь пока нет запусков.").wait_for()


def test_damaged_conversations_do_not_break_the_page(tmp_path, open_window):
    with server(tmp_path) as address:
        page = open_window(address)
        for damage in ("{", "null", '{"id": "a", "turns": 3}', '{"id": "a", "turns": [{}]}', "[]"):
            page.evaluate("(damage) => localStorage.setItem('octavo.chat.a', damage)", damage)
            page.evaluate("(damage) => localStorage.setItem('octavo.settings', damage)", damage)
            page.reload()
            page.get_by_text("Ask something.").wait_for()


def test_an_error_is_shown_and_can_be_retried(tmp_path, open_window, troubles):
    service = Scripted({"one": tmp_path / "one"})
    service.refusals = 1
    with server(tmp_path, service) as address:
        page = open_window(address)
        ask(page, "Hello")
        page.locator(".reply .trouble").get_by_text("too many requests").wait_for()
        page.get_by_role("button", name="Retry").click()
        page.get_by_text("I am one.").wait_for()
        assert [trouble for trouble in troubles if "429" not in trouble] == []
        troubles.clear()


def test_the_page_needs_the_key_where_there_is_one(tmp_path, open_window, troubles):
    with server(tmp_path, api_key="secret") as address:
        page = open_window(address)
        page.get_by_label("API key of this server").fill("secret")
        page.get_by_role("button", name="Enter").click()
        ask(page, "Hello")
        page.get_by_text("I am one.").wait_for()
    # The page for the key has no icon, and chromium has advice for it.
    troubles[:] = [trouble for trouble in troubles if "401" not in trouble and "verbose" not in trouble]


def test_without_models_the_page_says_how_to_serve_one(tmp_path, open_window):
    with server(tmp_path, Scripted({})) as address:
        page = open_window(address)
        page.get_by_text("No model is served. To serve one: octavo serve MODEL").wait_for()
