"""A hub on this machine, which speaks the part of the protocol that is used, and can fail in the usual ways."""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from octavo.pull.cache import Cache

COMMIT = "a" * 40
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 280, "hidden_size": 16,
    "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
}  # fmt: skip


@dataclass
class Seen:
    """One request."""

    path: str
    range: str | None
    authorization: str | None
    user_agent: str


@dataclass
class FakeHub:
    """Repositories by name; what to do wrong, once each, by file name; and what was asked."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    """What to say at a path, whatever is there."""
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    seen: list[Seen] = field(default_factory=list)
    resume: threading.Event = field(default_factory=threading.Event)
    """Lets a transfer that is held go on."""

    def add(self, repository: str, **files: bytes) -> dict[str, bytes]:
        """A model folder as it is published, but small; `files` (a__b for a.b) are added."""
        content = {
            "config.json": json.dumps(CONFIG).encode(),
            "tokenizer.json": b"{}",
            "tokenizer_config.json": b"{}",
            "README.md": b"read me",
            "model.safetensors": bytes(range(256)) * 1000,
        }
        self.repositories[repository] = content | {name.replace("__", "."): data for name, data in files.items()}
        return self.repositories[repository]

    def ranges(self, name: str) -> list[str | None]:
        """The Range header of each request for the content of that large file."""
        return [seen.range for seen in self.seen if seen.path == f"/cdn/{name}"]


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.seen.append(Seen(path, headers["Range"], headers["Authorization"], headers["User-Agent"]))
        if path in self.hub.answers:
            return self._send(200, self.hub.answers[path])
        if path.startswith("/api/models/"):
            return self._listing(path)
        if path.startswith("/cdn/"):
            name = path.removeprefix("/cdn/")
            return self._content(next(files[name] for files in self.hub.repositories.values() if name in files), name)
        repository, _, rest = path[1:].partition("/resolve/")
        commit, _, name = rest.partition("/")
        if commit != COMMIT or name not in self.hub.repositories.get(repository, {}):
            return self._refuse(404, "EntryNotFound")
        if "gated" in repository and headers["Authorization"] != "Bearer hf_good":
            return self._refuse(403, "GatedRepo")
        if not is_large(name):
            return self._content(self.hub.repositories[repository][name], name)
        # As the hub does: large files lie at another host, to which the token must not go.
        self.send_response(302)
        self.send_header("Location", self.hub.url.replace("127.0.0.1", "localhost") + f"/cdn/{name}")
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def _listing(self, path: str) -> None:
        repository, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        if self.hub.faults["listing"]:
            return self._refuse(int(self.hub.faults["listing"].pop(0)), None)
        if repository not in self.hub.repositories:
            return self._refuse(401, "RepoNotFound")
        if revision not in ("main", "v1"):
            return self._refuse(404, "RevisionNotFound")
        siblings = []
        for name, data in self.hub.repositories[repository].items():
            file = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if is_large(name):
                file["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(file)
        return self._send(200, json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())

    def _content(self, data: bytes, name: str) -> None:
        """The file from where it is asked for, or a fault."""
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        fault = self.hub.faults[name].pop(0) if self.hub.faults[name] else ""
        match fault:
            case "busy":
                return self._refuse(503, None)
            case "refuse the range":
                return self._refuse(416, None)
            case "ignore the range":
                start = 0
            case "alter":
                data = data[:-1] + b"!"
            case "lengthen":
                data += b"!"
        rest = data[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        half = len(rest) // 2
        if fault == "cut":
            self.wfile.write(rest[:half])
            self.close_connection = True
            return None
        self.wfile.write(rest[:half])
        if fault == "hold":
            self.wfile.flush()
            self.hub.resume.wait(20)
        self.wfile.write(rest[half:])
        return None

    def _refuse(self, status: int, code: str | None) -> None:
        self._send(status, b"", code)

    def _send(self, status: int, body: bytes, code: str | None = None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A client that leaves in the middle is part of the game."""


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session", autouse=True)
def _connections() -> Iterator[None]:
    yield
    close_session()


@pytest.fixture
def hub(monkeypatch) -> Iterator[FakeHub]:
    fake = FakeHub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": fake}))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr("octavo.pull.hub._WAITS_SECONDS", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    yield fake
    fake.resume.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")
