"""Questions over a connection: what is sent, how replies are read, and what happens when the server fails."""

import json
import socket
import threading
import time
from email.utils import formatdate

import pytest

from fake_server import FakeServer, Said, reply
from octavo.errors import ConfigError, OctavoError, StorageError, TrainingError
from octavo.storage import read_jsonl
from octavo.tasks.server import ServerConfig, ServerTeacher
from octavo.tasks.types import ChatReply, ChatRequest, SamplingParams
from octavo.text.messages import Message

PARAMS = SamplingParams(max_tokens=64, temperature=0.7, top_p=0.9, seed=5)
BUSY = Said({"error": {"message": "please wait"}}, 503)


def config(server: FakeServer, **values) -> ServerConfig:
    return ServerConfig.parse({"url": server.url, "model": "big", "longest_wait_seconds": 0.02, **values})


def questions(count: int, samples: int = 1) -> list[ChatRequest]:
    return [
        ChatRequest((Message("system", "Be brief."), Message("user", f"question {number}")), PARAMS, samples)
        for number in range(count)
    ]


def asked(body) -> str:
    return body["messages"][-1]["content"]


def test_every_sample_is_a_request_with_its_own_seed(server):
    server.script = lambda number, body: reply(f"{asked(body)}: {body['seed']}")
    answers = ServerTeacher(config(server)).answer(questions(3, samples=2))
    assert [[reply.text.partition(":")[0] for reply in group] for group in answers] == [
        [f"question {number}"] * 2 for number in range(3)
    ]
    seeds = {body["seed"] for body in server.bodies}
    assert len(seeds) == 2  # questions of one seed share their random numbers, samples do not
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert answers[0][0] == ChatReply(answers[0][0].text, "stop", 7, 11)
    assert answers[0][1].prompt_tokens == 0
    assert set(server.paths) == {"/v1/chat/completions"}
    first = dict(server.bodies[0])
    assert first.pop("messages")[0] == {"role": "system", "content": "Be brief."}
    first.pop("seed")
    assert first == {"model": "big", "max_tokens": 64, "temperature": 0.7, "top_p": 0.9}


def test_further_fields_are_added_and_taken_out(server):
    extra = {"max_tokens": None, "max_completion_tokens": 9, "chat_template_kwargs": {"enable_thinking": False}}
    ServerTeacher(config(server, extra=extra)).answer(questions(1))
    (body,) = server.bodies
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 9
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (reply("4"), ("4", "stop")),
        (reply("4", reasoning_content="2 and 2"), ("<think>2 and 2</think>4", "stop")),
        (reply("4", reasoning="2 and 2"), ("<think>2 and 2</think>4", "stop")),
        (reply("<think>so</think>4"), ("<think>so</think>4", "stop")),
        (reply(None, "length", reasoning_content="2 and"), ("<think>2 and", "length")),
        (reply("4, as", "length", reasoning_content="so"), ("<think>so</think>4, as", "length")),
        (reply(None, "content_filter"), ("", "cancelled")),
        (reply([{"type": "text", "text": "4"}, {"type": "image_url"}]), ("4", "stop")),  # pyright: ignore
    ],
)
def test_replies_are_read_with_their_reasoning(server, said, expected):
    server.script = lambda number, body: said
    ((answer,),) = ServerTeacher(config(server)).answer(questions(1))
    assert (answer.text, answer.finish_reason) == expected


def test_tokens_are_guessed_where_the_server_does_not_count(server):
    server.script = lambda number, body: Said({"choices": [{"message": {"content": "x" * 40}}]})
    ((answer,),) = ServerTeacher(config(server)).answer(questions(1))
    assert (answer.tokens, answer.prompt_tokens) == (10, 0)


@pytest.mark.parametrize(
    "failure",
    [BUSY, Said("too many", 429), Said(None), Said("<html>gateway</html>"), Said({"error": "x"}, 500)],
    ids=["busy", "too many", "hung up", "no JSON", "failing"],
)
def test_what_passes_is_tried_again(server, failure):
    server.script = lambda number, body: failure if number < 3 else reply("at last")
    ((answer,),) = ServerTeacher(config(server)).answer(questions(1))
    assert answer.text == "at last"
    assert len(server.bodies) == 4


@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_that_says_when_is_not_asked_before(server, as_date):
    times = []

    def script(number, body):
        times.append(time.time())
        # Dates have whole seconds: two ahead is at least one.
        wait = formatdate(time.time() + 2, usegmt=True) if as_date else "0.3"
        return Said({}, 429, {"Retry-After": wait}) if number == 0 else reply("ok")

    server.script = script
    ServerTeacher(config(server, longest_wait_seconds=5)).answer(questions(1))
    assert times[1] - times[0] >= (0.9 if as_date else 0.29)


def test_a_server_that_asks_for_too_long_a_pause_ends_the_stage(server):
    server.script = lambda number, body: Said({}, 429, {"Retry-After": "3600"})
    with pytest.raises(TrainingError, match="asks to wait for 3,600 seconds"):
        ServerTeacher(config(server)).answer(questions(1))
    assert len(server.bodies) == 1


def test_no_more_than_so_many_are_under_way_at_once(server):
    def script(number, body):
        time.sleep(0.02)
        return reply("ok")

    server.script = script
    ServerTeacher(config(server, parallel=3)).answer(questions(12))
    assert server.most_at_once == 3


def test_a_server_that_goes_away_half_way_loses_nothing(server, tmp_path):
    """It answers five questions and then no more; asked anew, it is asked the other seven only."""
    journal = tmp_path / "replies.jsonl"
    server.script = lambda number, body: reply(asked(body)) if number < 5 else BUSY
    with pytest.raises(TrainingError) as caught:
        ServerTeacher(config(server, parallel=1, tries=3), journal).answer(questions(12))
    assert str(caught.value) == (
        f"{server.url}: the server is busy or failing (status 503: please wait), 3 times in a row; 5 replies are kept, "
        "and the same command goes on from there"
    )
    assert caught.value.exit_code == 3
    assert len(read_jsonl(journal)) == 5
    journal.write_text(journal.read_text() + '{"request": "torn')  # and the machine was switched off
    server.bodies.clear()
    server.script = lambda number, body: reply(asked(body))
    answers = ServerTeacher(config(server), journal).answer(questions(12))
    assert [group[0].text for group in answers] == [f"question {number}" for number in range(12)]
    assert sorted(asked(body) for body in server.bodies) == sorted(f"question {number}" for number in range(5, 12))


def test_a_server_that_is_not_there_is_said_soon():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    values = {"url": url, "model": "m", "longest_wait_seconds": 0.01}
    with pytest.raises(ConfigError, match=f"no server answers at {url} .*: is it running, and is the address right"):
        ServerTeacher(ServerConfig.parse(values)).answer(questions(1))


def test_a_reply_that_takes_too_long_is_given_up(server):
    release = threading.Event()

    def script(number, body):
        release.wait(5)
        return reply("late")

    server.script = script
    with pytest.raises(TrainingError, match=r"no answer within 0\.1 seconds, 2 times in a row"):
        ServerTeacher(config(server, timeout_seconds=0.1, tries=2)).answer(questions(1))
    release.set()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said({"error": {"message": "bad key sk-secret"}}, 401), "refuses the key in OCTAVO_TEST_KEY (status 401)"),
        (Said({"error": {"message": "no model big"}}, 404), "has no model 'big', or no /chat/completions (status 404"),
        (Said({"error": {"message": "sk-secret\nis long"}}, 400), "refuses the request (status 400: *** is long)"),
        (Said("", 307, {"Location": "http://192.0.2.1/v1"}), "redirects elsewhere, and that is not followed"),
        (Said({"choices": []}), "does not answer as an OpenAI-compatible server does"),
        (Said({"choices": [{"message": {"content": 4}}]}), "does not answer as an OpenAI-compatible server does"),
        (Said({"x": "y" * (17 << 20)}), "an answer of more than 16,777,216 bytes"),
    ],
    ids=["key", "model", "request", "redirect", "no choices", "content", "huge"],
)
def test_what_the_user_must_mend_is_said_at_once_and_without_the_key(server, monkeypatch, said, message):
    monkeypatch.setenv("OCTAVO_TEST_KEY", "sk-secret")
    server.script = lambda number, body: said
    with pytest.raises(ConfigError) as caught:
        ServerTeacher(config(server, key_env="OCTAVO_TEST_KEY", parallel=1)).answer(questions(3))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert len(server.bodies) == 1
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"


def test_the_key_is_not_written_down(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_TEST_KEY", "sk-secret")
    ServerTeacher(config(server, key_env="OCTAVO_TEST_KEY"), tmp_path / "replies.jsonl").answer(questions(2))
    assert "sk-secret" not in (tmp_path / "replies.jsonl").read_text()


def test_only_the_given_host_is_asked(server, monkeypatch):
    """Neither a proxy of the environment nor a name server hears of it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9/")
    places = []
    connect = socket.socket.connect

    def watched(self, address):
        places.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    ServerTeacher(config(server)).answer(questions(2))
    port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
    assert {place for place in places if isinstance(place, tuple)} <= {("127.0.0.1", port)}
    assert len(server.bodies) == 2


def test_errors_are_ones_that_users_can_mend(server, tmp_path):
    """A journal that cannot be written is a storage error in one line, not a crash."""
    teacher = ServerTeacher(config(server), tmp_path / "folder" / "replies.jsonl")
    (tmp_path / "folder").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        teacher.answer(questions(3))


def test_a_journal_of_another_kind_is_refused(tmp_path):
    (tmp_path / "replies.jsonl").write_text(json.dumps([1]) + "\n")
    with pytest.raises(OctavoError, match="expected a JSON object"):
        ServerTeacher(ServerConfig(url="http://x/v1", model="m"), tmp_path / "replies.jsonl")
