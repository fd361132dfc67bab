"""What the sandbox holds. Tests that need more than limits ask for it, and are skipped where this machine cannot."""

import contextlib
import dataclasses
import os
import shutil
import socket
import sys
import time
from contextlib import closing

import psutil
import pytest

from octavo.errors import GradingError
from octavo.tasks import sandbox
from octavo.tasks.sandbox import Isolation, SandboxLimits, candidates, measure, run_tests
from octavo.tasks.time_limit import TimeLimitExceeded


def working() -> list[Isolation]:
    """All ways that work on this machine, measured."""
    found = []
    for isolation in candidates():
        try:
            found.append(measure(isolation))
        except GradingError:
            assert isolation.name != "rlimits" or isolation.drop_user, "limits alone must work everywhere"
    return found


WAYS = working()


@pytest.fixture(params=WAYS, ids=lambda way: f"{way.name}{'-as-nobody' * way.drop_user}")
def way(request) -> Isolation:
    return request.param


def sandboxed() -> set[int]:
    """Processes of a sandbox: this test's, or another one's that runs beside it."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "octavo.tasks.inside.harness" in " ".join(process.info["cmdline"] or [])
    }


@pytest.fixture
def leaves_nothing():
    """Nothing that the test started is there a moment later."""
    before = sandboxed()
    yield
    deadline = time.monotonic() + 2
    while (left := sandboxed() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def passes(solution, *tests, way=None, **limits) -> bool:
    return run_tests(solution, tests, limits=SandboxLimits(**limits), isolation=way).passed


def test_the_best_way_that_works_is_taken_and_can_be_written_down():
    assert sandbox.find_isolation() == WAYS[0]
    assert set(dataclasses.asdict(WAYS[0])) == {"name", "drop_user", "no_network", "no_files", "few_processes"}
    assert [way.name for way in WAYS] == sorted(
        (way.name for way in WAYS), key=["bubblewrap", "namespaces", "rlimits"].index
    )


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_namespaces_hold_everything():
    for way in WAYS:
        if way.name != "rlimits":
            assert (way.no_network, way.no_files, way.few_processes) == (True, True, True)


def test_bubblewrap_comes_first_where_it_is_installed():
    assert (candidates()[0].name == "bubblewrap") is (shutil.which("bwrap") is not None and sys.platform == "linux")


def test_right_and_wrong_solutions(way):
    tests = ["assert add(2, 3) == 5", "assert add(-1, 1) == 0"]
    assert run_tests("def add(a, b): return a + b", tests, isolation=way).results == (True, True)
    wrong = run_tests("def add(a, b): return 5", tests, isolation=way)
    assert (wrong.results, wrong.passed) == ((True, False), False)
    assert wrong.detail.startswith("test 1: AssertionError")


def test_no_tests_are_not_passed(way):
    assert not run_tests("x = 1", [], isolation=way).passed


ENDS = {
    "exit": "import sys\nsys.exit(0)",
    "exit in the call": "import sys\ndef add(a, b): sys.exit(0)",
    "hard exit": "import os\nprint('OK')\nos._exit(0)",
    "raises": "raise SystemExit",
    "no Python": "the answer is 5",
    "closes its pipes": "import os\nos.closerange(0, 64)\ndef add(a, b): return a + b",
    "kills": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\nos.kill(0, signal.SIGKILL)",
    "segmentation fault": "import ctypes\ndef add(a, b): ctypes.string_at(0)",
    "writes into its pipes": """
import os
for number in range(3, 64):
    try: os.write(number, b"OK" * 99)
    except OSError: pass""",
    "writes long frames": """
import os
for number in range(3, 64):
    try: os.write(number, b"\\xff" * 16)
    except OSError: pass""",
}


@pytest.mark.parametrize("solution", ENDS.values(), ids=ENDS.keys())
def test_a_solution_that_ends_itself_has_failed(solution):
    way = WAYS[0]
    if "getppid" in solution and way.name == "rlimits":
        pytest.skip("limits alone do not keep a process from its own user's others")
    assert not passes(solution, "assert add(2, 3) == 5", way=way)


TRICKS = {
    "equal to all": """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 5
def add(a, b): return Equal()""",
    "an int equal to all": """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def add(a, b): return Equal(7)""",
    "near to all": """
class Near:
    def __sub__(self, other): return 0
    __rsub__ = __add__ = __radd__ = __mod__ = __sub__
    def __lt__(self, other): return True
    __gt__ = __le__ = __ge__ = __eq__ = __lt__
    def __abs__(self): return 0
    def __contains__(self, other): return True
def add(a, b): return Near()""",
    "own builtins": """
import builtins
class Whatever(int):
    def __new__(cls, *given): return int.__new__(cls, 5)
builtins.abs = builtins.len = lambda *given: 0
def abs(x): return 0
def isinstance(*given): return True
AssertionError = type(None)
def add(a, b): return 6""",
    "own test functions": """
def test_add(): pass
def check(candidate): pass
class TestAdd: pass
def add(a, b): return 6""",
    "patches what it finds": """
import gc, sys
for thing in gc.get_objects():
    try:
        if hasattr(thing, "run_tests"): thing.run_tests = lambda *given: {"results": [True], "detail": ""}
        if hasattr(thing, "write_frame"): thing.write_frame = lambda *given: None
    except Exception: pass
sys.settrace(lambda *given: None)
sys.modules["unittest"] = sys.modules["math"] = sys.modules[__name__]
def isclose(*given, **named): return True
def add(a, b): return 6""",
}


ASSERTIONS = [
    "assert add(2, 3) == 5",
    "assert not add(2, 3) != 5",
    "assert abs(add(2, 3) - 5) < 1e-9",
    "assert 5 in [add(2, 3)]",
    "assert add(2, 3) in (4, 5)",
    "assert isinstance(add(2, 3), int) and add(2, 3) < 6 and add(2, 3) > 4",
    "def test_add():\n    assert add(2, 3) == 5",
    "class TestAdd:\n    def test_add(self):\n        assert add(2, 3) == 5",
    "import unittest\nclass TestAdd(unittest.TestCase):\n    def test_it(self): self.assertEqual(add(2, 3), 5)",
    "import math\nassert math.isclose(add(2, 3), 5)",
    "from solution import add\nassert add(2, 3) == 5",
    "def check(candidate):\n    assert candidate(2, 3) == 5",
]


@pytest.mark.parametrize("solution", TRICKS.values(), ids=TRICKS.keys())
def test_tricks_do_not_pass(solution):
    verdict = run_tests(solution, ASSERTIONS, "add", SandboxLimits(cpu_seconds=1), WAYS[0])
    assert verdict.results == (False,) * len(ASSERTIONS)


def test_the_same_tests_pass_without_tricks(way):
    assert run_tests("def add(a, b): return a + b", ASSERTIONS, "add", isolation=way).results == (True,) * len(
        ASSERTIONS
    )


HUNGRY = {
    "memory": "hoard = bytearray(2 * 2**30)\ndef add(a, b): return a + b",
    "memory in the call": "def add(a, b): return len(bytearray(2 * 2**30)) and a + b",
    "processor": "while True: pass",
    "processor in the call": "def add(a, b):\n    while True: pass",
    "sleeps": "import time\ndef add(a, b): time.sleep(60)",
    "waits for input": "def add(a, b): return int(input()) or a + b",
    "large result": "def add(a, b): return 'x' * (64 * 2**20)",
    "deep result": "def add(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x",
    "circular result": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
    "large file": "with open('f', 'wb') as f: f.write(bytes(64 * 2**20))\ndef add(a, b): return a + b",
    "many open files": "held = [open('f', 'w') for _ in range(999)]\ndef add(a, b): return a + b",
    "catches everything": """
def add(a, b):
    while True:
        try:
            while True: pass
        except BaseException: pass""",
}


@pytest.mark.parametrize("solution", HUNGRY.values(), ids=HUNGRY.keys())
def test_what_uses_too_much_has_failed_and_is_gone(solution):
    started = time.perf_counter()
    verdict = run_tests(solution, ["assert add(2, 3) == 5"], None, SandboxLimits(cpu_seconds=1), WAYS[0])
    assert not verdict.passed
    assert verdict.detail
    assert time.perf_counter() - started < 10


def test_a_gigabyte_of_output_is_nothing(way):
    chatty = "def add(a, b):\n    for _ in range(1000): print('x' * 10**6)\n    return a + b"
    assert passes(chatty, "assert add(2, 3) == 5", way=way)


@pytest.mark.usefixtures("leaves_nothing")
def test_time_on_the_clock_is_no_verdict(way):
    """It may be the machine's fault, so the answer is masked, not wrong."""
    with pytest.raises(TimeLimitExceeded):
        passes("x = 1", "import time\ntime.sleep(9)", way=way, wall_seconds=0.5)


FORKS = """
import os, time
def bomb():
    while True:
        os.fork()
def add(a, b):
    try: bomb()
    except OSError: pass
    return a + b
"""


@pytest.mark.usefixtures("leaves_nothing")
def test_a_fork_bomb_is_held_and_gone(way):
    if not way.few_processes:
        pytest.skip("needs isolation that limits processes")
    started = time.perf_counter()
    with contextlib.suppress(TimeLimitExceeded):
        run_tests(
            FORKS, ["assert add(2, 3) == 5"], None, SandboxLimits(cpu_seconds=1, processes=8, wall_seconds=6), way
        )
    assert time.perf_counter() - started < 15


@pytest.mark.usefixtures("leaves_nothing")
def test_what_leaves_the_session_is_gone_too(way):
    daemon = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
def add(a, b): return a + b
"""
    assert passes(daemon, "assert add(2, 3) == 5", way=way)


def test_no_network(way):
    if not way.no_network:
        pytest.skip("needs isolation from the network")
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as server,
        closing(socket.socket(type=socket.SOCK_DGRAM)) as ears,
    ):
        port = server.getsockname()[1]
        ears.bind(("127.0.0.1", port))
        ears.setblocking(False)
        solution = f"""
import socket
def refused(family, address):
    try:
        socket.socket(family, socket.SOCK_STREAM).connect(address)
    except OSError as error:
        return True
    return False
def shouts():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port}))
    except OSError as error:
        pass
def interfaces(): return [name for _, name in socket.if_nameindex()]
"""
        tests = [
            f"import socket\nassert refused(int(socket.AF_INET), ('127.0.0.1', {port}))",
            "import socket\nassert refused(int(socket.AF_INET), ('192.0.2.1', 80))",
            "shouts()",
            "assert interfaces() in ([], ['lo'])",
        ]
        assert run_tests(solution, tests, isolation=way).results == (True,) * 4
        with pytest.raises(BlockingIOError):
            ears.recv(1)


def test_files_outside_are_neither_read_nor_written(way, tmp_path):
    if not way.no_files:
        pytest.skip("needs isolation from files")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    solution = f"""
import os
def reads(path):
    try: return os.path.exists(path) or bool(open(path, 'rb').read())
    except OSError: return False
def writes(path):
    try:
        with open(path, 'a'): return True
    except OSError: return False
def escapes():
    try: os.chroot('.')
    except OSError: pass
    return os.path.exists({str(secret)!r}) or any(os.path.exists('../' * n + {str(secret)[1:]!r}) for n in range(9))
def parents():
    return [name for name in (os.listdir('/proc') if os.path.exists('/proc') else []) if name.isdigit()]
"""
    tests = [
        f"assert not reads({str(secret)!r})",
        f"assert not writes({str(secret.with_name('other'))!r})",
        "assert not any(writes(folder + '/octavo-was-here') for folder in ('', '/usr', '/usr/lib', '/lib', '/etc'))",
        f"assert not writes({sandbox.__file__!r}) and not writes({os.__file__!r})",
        "assert not any(map(reads, ('/root', '/home', '/etc/shadow', '/etc/passwd', '/var', '/sys', '/run')))".replace(
            "'/root', ", "" if sys.base_prefix.startswith("/root") else "'/root', "
        ).replace("'/home', ", "" if sys.base_prefix.startswith("/home") else "'/home', "),
        "assert not escapes()",
        "assert parents() == []",
        "assert writes('/tmp/mine')",
    ]
    assert run_tests(solution, tests, isolation=way).results == (True,) * len(tests)
    assert not secret.with_name("other").exists()
    assert not os.path.exists("/usr/octavo-was-here")


def test_files_of_one_run_are_gone_in_the_next(way):
    keeps = """
import os, tempfile
path = os.path.join(tempfile.gettempdir(), "kept")
seen = os.path.exists(path)
open(path, "w").close()
"""
    assert passes(keeps, "assert not seen", way=way)
    assert passes(keeps, "assert not seen", way=way)


def test_all_files_together_are_limited(way):
    if way.name == "rlimits":
        pytest.skip("needs a file system of its own")
    solution = """
def fill():
    for number in range(64):
        with open(f"{number}", "wb") as file: file.write(bytes(2**20))
"""
    assert not passes(solution, "fill()", way=way, disk_bytes=8 * 2**20)


def test_the_environment_is_empty(way, monkeypatch):
    monkeypatch.setenv("API_KEY", "secret")
    solution = "import os\ndef names(): return sorted(os.environ)"
    verdict = run_tests(solution, ["assert 'API_KEY' not in names() and len(names()) <= 6"], isolation=way)
    assert verdict.passed, verdict.detail


def test_the_process_of_the_tests_is_out_of_reach(way):
    if way.name == "rlimits":
        pytest.skip("needs processes of its own")
    solution = """
import ctypes, os
parent = os.getppid()
def traced(): return ctypes.CDLL(None).ptrace(16, parent, 0, 0) == 0
def signals():
    try: os.kill(parent, 9)
    except OSError: pass
    try: os.kill(-1, 9)
    except OSError: pass
    return True
def becomes_root():
    try: os.setuid(0)
    except OSError: return False
    return True
def unshares(): return ctypes.CDLL(None).unshare(0x10000000) == 0
"""
    tests = ["assert not traced()", "assert not becomes_root()", "assert signals()"]
    if way.name == "namespaces":  # in a bubble a user namespace of one's own is allowed: it leads nowhere
        tests.append("assert not unshares()")
    verdict = run_tests(solution, tests, isolation=way)
    assert verdict.passed, verdict.detail


def test_only_the_standard_library_can_be_imported(way):
    solution = "def has(name):\n    try: __import__(name)\n    except ImportError: return False\n    return True"
    verdict = run_tests(
        solution,
        ["assert has('fractions')", "assert not has('numpy')", "assert not has('octavo.world')"],
        isolation=way,
    )
    assert verdict.passed, verdict.detail


def test_a_broken_start_is_an_error_and_no_zero(monkeypatch):
    monkeypatch.setattr(sandbox, "_PROGRAM", "import sys; sys.exit('no luck ' + str(len({!r})))")
    with pytest.raises(GradingError, match="ended without a verdict: no luck"):
        run_tests("x = 1", ["assert x"], isolation=WAYS[-1])
    monkeypatch.setattr(
        sandbox, "_PROGRAM", 'import sys; print(\'xxxxxxxx\' + \'{{"results": [true], "detail": ""}}\', {!r})'
    )
    with pytest.raises(GradingError, match="ended without a verdict"):
        run_tests("x = 1", ["assert x"], isolation=WAYS[-1])
