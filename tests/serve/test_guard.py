"""Who may come in: sizes, names, origins, keys."""

import socket
import time

import httpx2 as httpx
import openai
import pytest

from octavo.errors import ConfigError
from octavo.serve.config import ServeConfig, ServiceConfig
from octavo.serve.run import api_key, check_reach, size_in_bytes
from tiny_server import serving

KEY = "a key of some length"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "What?"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def locked(tiny):
    config = ServeConfig(
        pages=False, api_key=KEY, origins=("https://page.example",), hosts=("octavo.example",), max_body_bytes=2000,
        body_seconds=1.0,
    )  # fmt: skip
    with serving({"tiny": tiny}, ServiceConfig(max_rows=2), config) as server:
        yield server


def get(server, path="/v1/models", **headers):
    return httpx.get(f"{server.url}{path}", headers=headers)


def test_a_key_is_needed_and_enough(locked):
    for key in ("wrong", KEY[:-1], KEY + "x", "ключ".encode().decode("latin-1")):
        answer = get(locked, authorization=f"Bearer {key}".encode("latin-1"))
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
    assert get(locked).status_code == 401
    assert get(locked, authorization=f"Bearer {KEY}").status_code == 200
    with locked.client(key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**ASK)
    with locked.client(key=KEY) as client:
        assert client.chat.completions.create(**ASK).choices
    assert get(locked, "/health").status_code == 200
    assert get(locked, "/metrics").status_code == 401


def test_a_browser_shows_the_key_once(locked):
    asked = get(locked, "/v1/models", accept="text/html")
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=/v1/models")
    page = get(locked, "/login?next=/v1/models")
    assert 'type="password"' in page.text
    wrong = httpx.post(f"{locked.url}/login?next=/v1/models", data={"key": "wrong"})
    assert wrong.status_code == 401
    right = httpx.post(f"{locked.url}/login?next=/v1/models", data={"key": KEY})
    assert (right.status_code, right.headers["location"]) == (303, "/v1/models")
    cookie = right.headers["set-cookie"]
    assert "httponly" in cookie.lower()
    assert "samesite=strict" in cookie.lower()
    assert KEY not in cookie
    assert get(locked, cookie=cookie.partition(";")[0]).status_code == 200
    assert get(locked, cookie=cookie.partition(";")[0][:-1]).status_code == 401


@pytest.mark.parametrize(
    "path", ["https://evil.example/x", "//evil.example/x", "/\\evil.example", "%2F%2Fevil.example"]
)
def test_login_leads_nowhere_else(locked, path):
    right = httpx.post(f"{locked.url}/login?next={path}", data={"key": KEY})
    location = right.headers["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


def test_next_is_escaped_on_the_page(locked):
    page = get(locked, '/login?next=/"><script>alert(1)</script>')
    assert "<script>" not in page.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("localhost.evil.example:80", 421),
        ("localhost:1234", 200),
        ("LOCALHOST", 200),
        ("chat.localhost", 200),
        ("octavo.example", 200),
        ("192.168.1.5:8000", 200),
        ("[::1]:8000", 200),
    ],
)
def test_names_of_others_are_refused(locked, host, status):
    assert get(locked, host=host, authorization=f"Bearer {KEY}").status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("https://page.example.evil.example", 403),
        ("https://page.example", 200),
    ],
)
def test_pages_of_others_are_refused(locked, origin, status):
    answer = get(locked, origin=origin, authorization=f"Bearer {KEY}")
    assert answer.status_code == status
    assert (answer.headers.get("access-control-allow-origin") == origin) == (status == 200)


def test_a_page_of_the_server_itself_may_use_it(locked):
    assert get(locked, origin=locked.url, authorization=f"Bearer {KEY}").status_code == 200


def test_preflight_tells_who_may(locked):
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = httpx.options(f"{locked.url}/v1/models", headers={"origin": "https://page.example", **asked})
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"
    refused = httpx.options(f"{locked.url}/v1/models", headers={"origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in refused.headers


def raw(server, *pieces: bytes, wait_seconds: float = 0.0) -> bytes:
    """What the server answers to bytes sent by hand."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(wait_seconds)
        connection.shutdown(socket.SHUT_WR) if not wait_seconds else None
        return connection.recv(4096)


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"


def test_too_large_a_body(locked):
    with locked.client(key=KEY) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x" * 3000}])
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert b" 413 " in raw(locked, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3, wait_seconds=0.2)


def test_too_slow_a_body(locked):
    started = time.monotonic()
    answer = raw(locked, HEAD + b"Content-Length: 50\r\n\r\n{", wait_seconds=1.5)
    assert b" 408 " in answer
    assert time.monotonic() - started < 8
    with locked.client(key=KEY) as client:
        assert client.chat.completions.create(**ASK).choices


def test_garbage_is_no_request(locked):
    assert b" 400 " in raw(locked, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", wait_seconds=0.1)
    assert get(locked, "/health").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "octavo.example", "127.0.0.1.example"])
def test_other_machines_need_a_key_or_a_word(host):
    with pytest.raises(ConfigError, match="lets other machines in"):
        check_reach(ServeConfig(host=host))
    check_reach(ServeConfig(host=host, api_key=KEY))
    check_reach(ServeConfig(host=host, insecure=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host):
    check_reach(ServeConfig(host=host))


def test_the_key_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    assert api_key(None, "SOME_KEY") is None
    monkeypatch.setenv("SOME_KEY", KEY)
    assert api_key(None, "SOME_KEY") == KEY
    file = tmp_path / "key"
    file.write_text("another key\n")
    assert api_key(file, "SOME_KEY") == "another key"
    for content in ("", "short", "a key with \x07", "ключ ключ ключ"):
        file.write_text(content)
        with pytest.raises(ConfigError, match="at least 8 printable ASCII"):
            api_key(file, "SOME_KEY")
    with pytest.raises(ConfigError, match="cannot be read"):
        api_key(tmp_path / "none", "SOME_KEY")


def test_sizes():
    assert size_in_bytes("8GB", "x") == size_in_bytes("8 GiB", "x") == 8 * 2**30
    assert size_in_bytes("1.5m", "x") == 1.5 * 2**20
    for wrong in ("", "8 elephants", "-1GB", "0", "GB"):
        with pytest.raises(ConfigError, match="expected a size"):
            size_in_bytes(wrong, "--memory")
