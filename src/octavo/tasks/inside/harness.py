"""The program inside the sandbox: one process holds the solution, another one the tests and the verdict.

The solution's process is started before the tests are read, and has none of this process's pipes. Whatever it does to
itself (ends, patches what it finds, prints "OK"), all that it can do to the verdict is to answer calls.
"""

import builtins
import contextlib
import importlib
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from octavo.tasks.inside.isolate import isolate, limit_cpu
from octavo.tasks.inside.remote import CALLS_ONLY, OPERATIONS, Closed, Peer, read_frame, write_frame

_MAX_DETAIL_CHARACTERS = 500


def main() -> NoReturn:
    """Read a solution with its limits, then tests, from descriptor 0; write the verdict to 1, errors of ours to 2."""
    job = read_frame(0)
    isolate(job["isolation"], job["visible"], job["limits"], job["become_user"])
    _end_after(job["limits"]["wall_seconds"] + 1)
    answers_from, answers_to = os.pipe()
    questions_from, questions_to = os.pipe()
    solution = os.fork()
    if solution == 0:
        os.setsid()  # so that it can signal no group that this process is of
        _redirect(0, 1, 2)
        os.close(answers_from)
        os.close(questions_to)
        limit_cpu(job["limits"]["cpu_seconds"])
        serve_solution(job["solution"], questions_from, answers_to)
    os.close(questions_from)
    os.close(answers_to)
    tests = read_frame(0)
    verdict_to = os.dup(1)
    _redirect(0, 1)
    peer = Peer(answers_from, questions_to, CALLS_ONLY, _patience(solution, job["limits"]["cpu_seconds"]))
    verdict = run_tests(peer, tests["tests"], tests["entry_point"])
    if "gone" in verdict:
        verdict["detail"] = f"the solution {_how_it_ended(solution)}"
    _end_others(solution)
    write_frame(verdict_to, {"nonce": tests["nonce"], **verdict})
    os._exit(0)  # not by way of anything that was registered meanwhile


def serve_solution(source: str, questions_from: int, answers_to: int) -> NoReturn:
    """Be the process that has the solution: run its text when asked to, and then what the tests call."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "octavo"]:
        del sys.modules[name]  # it has no business with us
    module = types.ModuleType("solution")
    sys.modules["solution"] = module  # dataclasses and pickle look there

    def load() -> list[Any]:
        exec(compile(source, "solution.py", "exec"), vars(module))
        return list(_offered(module))

    Peer(questions_from, answers_to, {**OPERATIONS, "load": load}).serve()
    os._exit(0)


def run_tests(peer: Peer, tests: Sequence[str], entry_point: str | None) -> dict[str, Any]:
    """What passed, and what the first failure says.

    A text is one test, or as many as it has functions `test_...` and methods of that name in classes `Test...` or of
    unittest's; where it defines `check` (HumanEval's way), that is called with the solution's `entry_point`.
    """
    results: list[bool] = []
    details: list[str] = []
    gone = False

    @contextlib.contextmanager
    def test(name: str) -> Iterator[None]:
        nonlocal gone
        try:
            yield
            results.append(True)
        except BaseException as error:  # sys.exit() in a test is no way to pass it
            gone = gone or isinstance(error, Closed)
            results.append(False)
            details.append(f"{name}: {type(error).__name__}: {error}"[:_MAX_DETAIL_CHARACTERS])

    names: dict[str, Any] = {}
    with test("loading the solution"):
        names = _named(peer)
    loaded = results.pop()
    for number, text in enumerate(tests):
        name = f"test {number}"
        if not loaded:
            results.append(False)
            continue
        namespace: dict[str, Any] = {"__name__": "tests", **names}
        cases: list[tuple[str, Any]] = []
        with test(name):
            exec(compile(text, f"{name}.py", "exec"), namespace)
            cases = _cases(namespace)
            if isinstance(check := namespace.get("check"), types.FunctionType) and entry_point is not None:
                check(names[entry_point])
        if results[-1] and cases:
            results.pop()
        for case, run in cases:
            with test(case):
                run()
    return {"results": results, "detail": details[0] if details else ""} | ({"gone": True} if gone else {})


def _offered(module: types.ModuleType) -> Iterator[list[Any]]:
    """What the solution defines, as (kind, name, value): tests use it by name, as if it were theirs."""
    for name, value in list(vars(module).items()):
        if name.startswith("__"):
            continue
        if isinstance(value, types.ModuleType):
            yield ["module", name, value.__name__]
        elif isinstance(value, type) and issubclass(value, Exception):
            yield ["exception", name, [kind.__name__ for kind in value.__mro__]]
        else:
            yield ["value", name, value]


def _named(peer: Peer) -> dict[str, Any]:
    """Names of the solution, for the tests: values by themselves, all else as a Remote.

    None that means something already: a solution that defines `abs`, or a thing called `math`, does not get to say what
    the tests mean by it. Modules that tests find imported are this process's own.
    """
    found: dict[str, Any] = {}
    for kind, name, value in peer.ask("load"):
        if hasattr(builtins, name):
            continue
        if kind == "module" and value in sys.stdlib_module_names:
            found[name] = importlib.import_module(value)
        elif name in sys.stdlib_module_names:
            found[name] = importlib.import_module(name)
        elif kind == "exception":
            found[name] = _exception(peer, *value)
        elif kind == "value":
            found[name] = value
    module = types.ModuleType("solution")
    vars(module).update(found)
    sys.modules["solution"] = module
    return found


def _exception(peer: Peer, name: str, *bases: str) -> type[Exception]:
    """A class of this process by which an exception of the solution's is raised and caught here."""
    if isinstance(known := getattr(builtins, name, None), type) and issubclass(known, Exception):
        return known
    if name not in peer.exceptions:
        base = _exception(peer, *bases) if bases else Exception
        peer.exceptions[name] = types.new_class(name, (base,))
    return peer.exceptions[name]


def _cases(namespace: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a text of tests has defined to be run. What the solution defines is a Remote, whatever it is called."""
    unittest = sys.modules.get("unittest")
    cases: list[tuple[str, Any]] = []
    for name, value in namespace.items():
        if name.startswith("test") and isinstance(value, types.FunctionType):
            cases.append((name, value))
        elif unittest and isinstance(value, type) and issubclass(value, unittest.TestCase):
            loaded = unittest.defaultTestLoader.loadTestsFromTestCase(value)
            cases += [(case.id(), case.debug) for case in loaded if isinstance(case, unittest.TestCase)]
        elif name.startswith("Test") and isinstance(value, type):
            methods = [method for method in dir(value) if method.startswith("test")]
            cases += [(f"{name}.{method}", _method(value, method)) for method in methods]
    return cases


def _method(kind: type, name: str) -> Callable[[], Any]:
    return lambda: getattr(kind(), name)()


def _patience(pid: int, seconds: float) -> Callable[[int], None]:
    """Waits for a process to write, as long as it computes; one that only sleeps will not answer. Raises Closed."""

    def spent() -> float:
        # The processor-time clock of another process, as clock_getcpuclockid(3) names it; elsewhere only time counts.
        return time.clock_gettime((~pid << 3) | 2) if sys.platform == "linux" else 0.0

    def wait(descriptor: int) -> None:
        before, since = spent(), time.monotonic()
        while not select.select([descriptor], [], [], 0.2)[0]:
            if (now := spent()) > before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > seconds:
                raise Closed("the solution waits for something")

    return wait


def _end_after(seconds: float) -> None:
    """In case that nobody is left to end this process. Process 1 gets no signal that it does not handle."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _redirect(*descriptors: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _end_others(solution: int) -> None:
    """End all that the solution has started. Where this is process 1, they end with it; else orphans become its own."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(solution, signal.SIGKILL)
    with contextlib.suppress(FileNotFoundError, ChildProcessError):  # no /proc; nobody left
        while True:
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                for pid in children.read().split():
                    os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)


def _how_it_ended(pid: int) -> str:
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return "does not answer"
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return "took too much processor time"
    if code == -signal.SIGKILL:
        return "was killed (processor time, or memory)"
    return f"ended itself ({code})"
