"""What the chat page's script asks of its server, without a browser."""

import html
import json
import re

import pytest
from starlette.testclient import TestClient

from octavo.serve.app import create_app
from octavo.serve.config import ServeConfig
from octavo.serve.service import Service

ROW = [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]


def client(tmp_path, **config) -> TestClient:
    settings = ServeConfig(runs=str(tmp_path / "runs"), **config)
    return TestClient(create_app(Service({"a<b": tmp_path}), settings), base_url="http://127.0.0.1:8000")


def told(browser: TestClient) -> dict:
    return json.loads(html.unescape(re.search(r'data-told="([^"]*)"', browser.get("/").text)[1]))


def test_the_page_is_told_its_models_and_texts_escaped(tmp_path):
    browser = client(tmp_path)
    assert told(browser)["models"] == ["a<b"]
    page = browser.get("/", headers={"Accept-Language": "sv"})
    assert '<html lang="sv">' in page.text
    assert '<option value="a&lt;b">a&lt;b</option>' in page.text
    assert "Nytt samtal" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for link in re.findall(r"(?:src|href|action)=\"([^\"]*)\"", page.text):
        assert link.startswith(("/", "#")), link


def test_replies_become_html(tmp_path):
    browser = client(tmp_path)
    assert browser.post("/page/html", json={"text": "**a** <b>"}).json() == {
        "html": "<p><strong>a</strong> &lt;b&gt;</p>\n"
    }
    for bad in ({}, {"text": 3}, {"text": "a" * 1_000_001}, [], {"text": None}):
        assert browser.post("/page/html", json=bad).status_code == 400
    assert browser.post("/page/html", content=b'{"text": "\\ud800"}').status_code == 400
    assert browser.post("/page/html", content=b"\xff").status_code == 400


def test_a_row_is_kept_with_the_token_of_the_page_only(tmp_path):
    file = tmp_path / "kept.jsonl"
    browser = client(tmp_path, save_rows=str(file))
    token = told(browser)["token"]
    assert told(browser)["keeps"]
    assert browser.post("/page/keep", json={"token": token, "messages": ROW}).json() == {"kept": True}
    assert json.loads(file.read_text()) == {"messages": ROW}
    for wrong in ("", "x", token + "x", "é"):
        assert browser.post("/page/keep", json={"token": wrong, "messages": ROW}).status_code == 403
    evil = browser.post("/page/keep", json={"token": token, "messages": ROW}, headers={"Origin": "https://example.org"})
    assert evil.status_code == 403
    assert file.read_text().count("\n") == 1


def test_the_file_is_the_server_s_choice(tmp_path):
    browser = client(tmp_path)
    page = told(browser)
    assert not page["keeps"]
    body = {"token": page["token"], "messages": ROW, "file": str(tmp_path / "x"), "path": "/etc/passwd"}
    answer = browser.post("/page/keep", json=body)
    assert answer.status_code == 404
    assert "--save-rows FILE" in answer.json()["error"]["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("messages", [[], [{}], ["x"], ROW[:1], [{"role": "user", "content": None}], "x", None])
def test_what_is_no_conversation_is_refused(tmp_path, messages):
    browser = client(tmp_path, save_rows=str(tmp_path / "kept.jsonl"))
    answer = browser.post("/page/keep", json={"token": told(browser)["token"], "messages": messages})
    assert answer.status_code == 400
    assert not (tmp_path / "kept.jsonl").exists()


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "folder").mkdir()
    browser = client(tmp_path, save_rows=str(tmp_path / "folder"))
    answer = browser.post("/page/keep", json={"token": told(browser)["token"], "messages": ROW})
    assert answer.status_code == 400
    assert "cannot write" in answer.json()["error"]["message"]


def test_pages_can_be_left_out(tmp_path):
    browser = client(tmp_path, pages=False)
    assert browser.get("/").status_code == 404
    assert browser.get("/runs").status_code == 404
