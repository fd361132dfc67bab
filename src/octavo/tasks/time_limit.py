"""A wall-clock limit around one call of foreign code (a verifier), which must not leak into what comes after."""

import ctypes
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

# Foreign code may catch everything (`except: pass`), so the limit strikes again until the call has ended.
_STRIKE_AGAIN_SECONDS = 0.05


class TimeLimitExceeded(BaseException):
    """The call took too long. Not an `Exception`, so that `except Exception` inside the call cannot swallow it."""


def call_within(seconds: float, function: Callable[..., Result], *arguments: Any) -> Result:
    """Return `function(*arguments)`; raises TimeLimitExceeded after `seconds`, and whatever the function raises.

    On the main thread an interval timer interrupts the call; the handler and timer that were there before are put
    back. On other threads the call runs on a thread of its own, which is told to stop. Code that never returns to the
    interpreter (one long C call) ends only when it returns.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        return _by_signal(seconds, function, arguments)
    return _by_thread(seconds, function, arguments)


def _by_signal(seconds: float, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    expired = False

    def strike(*_: object) -> None:
        nonlocal expired
        expired = True
        raise TimeLimitExceeded

    earlier_handler = signal.signal(signal.SIGALRM, strike)
    try:
        earlier_timer = signal.setitimer(signal.ITIMER_REAL, seconds, _STRIKE_AGAIN_SECONDS)
        try:
            result = function(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, *earlier_timer)
    finally:
        signal.signal(signal.SIGALRM, earlier_handler)
    if expired:  # The call swallowed the interruption and returned something: not to be trusted.
        raise TimeLimitExceeded
    return result


def _by_thread(seconds: float, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    results: list[Result] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function(*arguments))
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work, name="octavo-time-limit", daemon=True)
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        for _ in range(20):
            _raise_in(worker, TimeLimitExceeded)
            worker.join(_STRIKE_AGAIN_SECONDS)
            if not worker.is_alive():
                break
        raise TimeLimitExceeded
    if failures:
        raise failures[0]
    return results[0]


def _raise_in(thread: threading.Thread, error: type[BaseException]) -> None:
    """Have CPython raise `error` in another thread at its next bytecode."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))
