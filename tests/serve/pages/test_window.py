"""The pages of /runs: what they say, that they escape it, and whom they obey."""

import os
import re

import pytest
from starlette.testclient import TestClient

from made_run import SCORES, make_run, rollout, write_lines
from octavo.serve.pages import window as room
from octavo.serve.pages.app import window_app
from octavo.storage import write_json

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e"


@pytest.fixture
def root(tmp_path):
    make_run(tmp_path / "done", finished=True)
    make_run(tmp_path / "half")
    return tmp_path


def client(root, address: str = "127.0.0.1") -> TestClient:
    return TestClient(window_app(root), base_url="http://127.0.0.1:8800", client=(address, 50000))


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_the_list_of_runs(root):
    page = client(root).get("/runs")
    assert page.status_code == 200
    text = text_of(page.text)
    assert "done finished" in text
    assert "rl: 75.0%" in text
    assert "half interrupted rl, step 6/10 1 of 3 stages" in text


def test_running_runs_come_first(root):
    assert client(root).get("/runs").text.index("/runs/done") < 10**6
    with make_run(root / "zz").lock():
        page = client(root).get("/runs").text
    assert page.index('href="/runs/zz"') < page.index('href="/runs/done"')


def test_a_run_with_its_curves_and_completions(root):
    page = client(root).get("/runs/half")
    text = text_of(page.text)
    assert "rl grpo" in text
    assert "status interrupted step 6 / 10 time 12 s energy ≈ 0.5 Wh (estimated)" in text
    assert "energy ≈ 1.5 Wh (estimated)" in text  # of the whole run
    assert 'aria-label="Reward: reward 0.6"' in page.text
    assert 'aria-label="Accuracy: validation problems 50%, training problems 30%"' in page.text
    assert "What is 1 + 2? &lt;think&gt;1+2=3&lt;/think&gt;&lt;answer&gt;3&lt;/answer&gt; reward 1.1" in text
    assert "Rewards of its group: 1.1 0.1" in text


def test_a_finished_run_shows_its_results(root):
    page = client(root).get("/runs/done", params={"stage": "eval-rl"})
    text = text_of(page.text)
    assert "rl 75.0% 30.0% – 95.0%" in text
    assert "sums 75.0% 30.0% – 95.0% 50.0% 2 12.5" in text
    assert "expected: 3 · given: ✓ 3 ? –" in text
    base = text_of(client(root).get("/runs/done", params={"stage": "base"}).text)
    assert "energy 1 Wh tokens 2.05k FLOPs 1e+09 peak memory 0.50 GB" in base


def test_a_page_in_russian(root):
    page = client(root).get("/runs/half", headers={"Accept-Language": "ru"})
    assert '<html lang="ru">' in page.text
    assert "состояние прервано шаг 6 / 10" in text_of(page.text)
    assert (
        client(root)
        .get("/runs", headers={"Accept-Language": "ru", "Cookie": "octavo_language=sv"})
        .text.count('<html lang="sv">')
    )


def test_names_and_what_models_write_are_escaped(tmp_path):
    evil = make_run(tmp_path / "<b>&\"'", finished=True, name=EVIL, description=EVIL)
    write_lines(evil.stage("rl").rollouts, [rollout(1, EVIL) | {"question": EVIL, "gold": EVIL, "task": EVIL}])
    evaluation = {"overall": SCORES, "tasks": {EVIL: SCORES}, "records": [{"question": EVIL, "answers": [EVIL]}]}
    write_json(evil.stage("eval-rl").evaluation, evaluation | {"records": [{"answers": [EVIL], "correct": [True]}]})
    (tmp_path / "<b>&\"'" / "summary.json").write_text(EVIL)
    for address in ("/runs", "/runs/%3Cb%3E%26%22'?stage=rl", "/runs/%3Cb%3E%26%22'?stage=eval-rl", f"/runs/{EVIL}"):
        page = client(tmp_path).get(address)
        assert page.status_code in (200, 404)
        assert "<b>&" not in page.text
        assert "onerror" not in page.text.replace("&lt;img src=x onerror=alert(1)&gt;", "")
        assert not re.findall(r"<script(?! src=\"/static/)", page.text)


def test_halves_of_characters_do_not_break_a_page(root):
    (root / "half" / "rl" / "rollouts.jsonl").write_text('{"step": 1, "completion": "a\\ud800b\\u0000"}\n')
    page = client(root).get("/runs/half")
    assert page.status_code == 200
    assert "a?b" in page.text


NAMES = ["..", "../..", "%2e%2e/%2e%2e/etc", "..%2f..%2fetc", "/etc", "half/../done", "half/rl", "%00", "half%00"]
NAMES += ["~root", "secret", "half/config.yaml", "C:\\", "\\\\host", "a" * 5000]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_looked_up_and_is_no_path(tmp_path, name):
    make_run(tmp_path / "secret", finished=True)
    make_run(tmp_path / "runs" / "half")
    make_run(tmp_path / "runs" / "done")
    page = client(tmp_path / "runs").get(f"/runs/{name}", follow_redirects=False)
    assert page.status_code in (404, 307) or page.url.path == "/runs/done"
    assert "secret" not in page.text or name == "secret"


def test_a_stage_is_looked_up_and_is_no_path(root):
    write_json(root / "done" / "rl" / "x" / "manifest.json", {})
    for stage in ("../../done/rl", "/etc", "rl/../base", "\x00", "no such"):
        page = client(root).get("/runs/half", params={"stage": stage})
        assert page.status_code == 200
        assert "rl grpo" in text_of(page.text)  # the present stage is shown instead


@pytest.mark.parametrize("before", ["-1", "x", "1e9", "9" * 30, ""])
def test_a_place_that_is_no_number_is_refused(root, before):
    assert client(root).get("/runs/half", params={"before": before}).status_code == 422


def test_nothing_is_loaded_from_elsewhere_and_nothing_may_be(root):
    for address in ("/runs", "/runs/half", "/runs/none"):
        page = client(root).get(address)
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for link in re.findall(r"(?:src|href|action)=\"([^\"]*)\"", page.text):
            assert link.startswith(("/static/", "/runs", "#")), link
            if link.startswith("/static/"):
                assert client(root).get(link).status_code == 200


def test_static_files_are_known_by_name_only(root):
    assert client(root).get("/static/base.css").headers["content-type"] == "text/css; charset=utf-8"
    for name in ("..%2fwindow.py", "%2e%2e/html.py", "none", ".", "base.css%00"):
        assert client(root).get(f"/static/{name}").status_code in (404, 400)
    tag = client(root).get("/static/base.css").headers["etag"]
    assert client(root).get("/static/base.css", headers={"If-None-Match": tag}).status_code == 304


def token_of(page) -> str:
    return re.search(r'name="token" value="([^"]+)"', page.text)[1]


def test_a_run_is_stopped_and_taken_up_with_the_token_of_a_page(root, monkeypatch):
    asked = []
    monkeypatch.setattr(room.Controls, "stop", lambda self, run: asked.append(("stop", run.path.name)))
    monkeypatch.setattr(room.Controls, "resume", lambda self, run: asked.append(("resume", run.path.name)))
    browser = client(root)
    page = browser.get("/runs/half")
    assert "Resume" in page.text
    done = browser.post("/runs/half/resume", data={"token": token_of(page)}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/runs/half")
    with make_run(root / "live").lock():
        page = browser.get("/runs/live")
        assert "Stop" in page.text
        browser.post("/runs/live/stop", data={"token": token_of(page)})
    assert asked == [("resume", "half"), ("stop", "live")]
    assert browser.post("/runs/none/stop", data={"token": token_of(page)}).status_code == 404


@pytest.mark.parametrize("data", [{}, {"token": ""}, {"token": "x"}, {"token": "\u00e9"}])
def test_without_the_token_nothing_is_done(root, monkeypatch, data):
    monkeypatch.setattr(room.Controls, "resume", lambda *_: pytest.fail("it was done"))
    answer = client(root).post("/runs/half/resume", data=data)
    assert answer.status_code == 403
    assert "Load the page again" in answer.text


def test_another_machine_sees_no_buttons_and_is_refused(root, monkeypatch):
    monkeypatch.setattr(room.Controls, "resume", lambda *_: pytest.fail("it was done"))
    app = window_app(root)
    near = TestClient(app, base_url="http://127.0.0.1:8800", client=("127.0.0.1", 1))
    far = TestClient(app, base_url="http://127.0.0.1:8800", client=("192.0.2.7", 1))
    token = token_of(near.get("/runs/half"))
    assert 'name="token"' not in far.get("/runs/half").text
    assert far.post("/runs/half/resume", data={"token": token}).status_code == 403


def test_a_page_from_elsewhere_that_has_its_name_answered_with_our_address_is_refused(root):
    assert client(root).get("/runs", headers={"Host": "evil.example"}).status_code == 421


def test_what_cannot_be_done_is_said(root):
    browser = client(root)
    token = token_of(browser.get("/runs/half"))
    answer = browser.post("/runs/done/stop", data={"token": token})
    assert answer.status_code == 409
    assert "done: no process of this machine is writing this run" in answer.text


def test_a_root_without_runs_says_how_to_make_one(tmp_path):
    page = client(tmp_path / "none").get("/runs")
    assert page.status_code == 200
    assert "There is no run here yet. This makes one: octavo run r1-mini" in text_of(page.text)
    assert client(tmp_path / "none").get("/runs/a").status_code == 404
    (tmp_path / "file").write_text("")
    assert "expected a folder with run folders" in client(tmp_path / "file").get("/runs").text


def test_damaged_files_are_told_on_the_page(root):
    (root / "half" / "ledger.json").write_text("{")
    (root / "half" / "rl" / "metrics.jsonl").write_text('x\n{"step": 1, "loss": 2.0}\n')
    os.truncate(root / "half" / "rl" / "rollouts.jsonl", 30)
    page = client(root).get("/runs/half")
    assert "ledger.json: expected a JSON file; it is damaged or half-written" in page.text
    assert "Damaged lines that were passed over: 1" in page.text
    assert str(root) not in page.text
