"""Promise 6: nothing opens a connection but `octavo pull`, and a stage that was given a server as its teacher.

Read from the source, and tried where it is impossible.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import octavo
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import save_model

PACKAGE = Path(octavo.__file__).parent
OPENS_CONNECTIONS = {"pull/hub.py", "tasks/server/exchange.py"}
"""The second one to the address in the recipe alone (tests/tasks/server)."""
LISTENS = {"tasks/sandbox.py", "serve/run.py", "watch.py"}
"""The first on this machine alone, to see whether what runs in a sandbox can be kept from connecting; the last for a
browser on this machine."""
STARTS_PROGRAMS = {"pull/wheel.py", "disclosure.py", "serve/runs/control.py", "native/build.py"}
"""pip, which asks the package index; git, for the revision of a checkout; `octavo run` again; the C compiler. Verifiers
(tasks/) start processes too."""
NETWORK = {
    "aiohttp", "ftplib", "http", "httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "imaplib",
    "poplib", "requests", "smtplib", "socket", "ssl", "telnetlib", "urllib3", "websockets", "xmlrpc", "hf_xet",
}  # fmt: skip
PROGRAMS = {"subprocess", "pty"}


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, functions included, and what it gives to import_module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def using(names: set[str]) -> set[str]:
    """Files of the package that import one of `names` (urllib.parse only takes addresses apart)."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        modules = imported(path)
        roots = {module.split(".")[0] for module in modules}
        if roots & names or any(module.startswith("urllib.") and "parse" not in module for module in modules):
            found.add(path.relative_to(PACKAGE).as_posix())
    return found


def test_who_knows_how_to_open_a_connection():
    assert using(NETWORK) - LISTENS == OPENS_CONNECTIONS


def test_who_starts_programs_is_known():
    """A program could open a connection: whoever starts one is named here, with what it is for."""
    assert {path for path in using(PROGRAMS) if not path.startswith("tasks/")} <= STARTS_PROGRAMS
    assert "pull/wheel.py" in using(PROGRAMS)
    assert not [path for path in PACKAGE.rglob("*.py") if "os.system(" in path.read_text(encoding="utf-8")]


def test_nothing_loads_pull_s_connection_by_itself():
    """The commands import hub.py and wheel.py only inside the functions that fetch."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tops = {
            f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {top for top in tops if top.startswith(("octavo.pull.hub", "octavo.pull.wheel"))}, path


SCRIPT = """
import json, socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"a connection: {arguments}")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, refuse)

import octavo
from octavo.cli import exit_code_of

codes = {}
for command in json.loads(sys.argv[1]):
    codes[" ".join(command[:2])] = exit_code_of(command)
tried = [name for name in ("huggingface_hub", "httpx2", "octavo.pull.hub") if name in sys.modules]
print(json.dumps([codes, tried]))
"""


def test_every_other_command_works_where_no_connection_can_be_opened(tmp_path):
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["What is this?"], 280)
    shape = {"vocab_size": tokenizer.vocab_size, "width": 16, "layers": 1, "ffn_width": 16, "max_positions": 256}
    attention = {"kind": "gqa", "heads": 2, "kv_heads": 1, "qkv_bias": True}
    model = Transformer(ModelConfig.parse(shape | {"attention": attention}))
    folder = tmp_path / "model"
    save_model(folder, model, tokenizer)
    questions = tmp_path / "mine.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{n}?", "answer": str(n)}) + "\n" for n in range(4)))
    commands = [
        ["--version"],
        ["pull", "--json"],
        ["chat", str(folder), "-p", "What?", "--max-tokens", "4"],
        ["chat", "-p", "What?"],
        ["eval", str(folder), str(questions), "--samples", "1", "--max-tokens", "4"],
        ["run", "smoke", "--dry-run", "--out", str(tmp_path / "run")],
        ["doctor", "--json"],
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"OCTAVO_CACHE": str(tmp_path / "cache")},
    )
    codes, tried = json.loads(done.stdout.splitlines()[-1])
    assert codes == {
        "--version": 0,
        "pull --json": 0,
        f"chat {folder}": 0,
        "chat -p": 2,
        f"eval {folder}": 0,
        "run smoke": 0,
        "doctor --json": 0,
    }
    assert "octavo: smollm2-135m is not fetched yet: octavo pull smollm2-135m" in done.stderr
    assert tried == []
