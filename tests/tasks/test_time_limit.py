import contextlib
import signal
import threading
import time

import pytest

from octavo.tasks.time_limit import TimeLimitExceeded, call_within


def spin() -> None:
    while True:
        pass


def swallow() -> str:
    """A verifier that catches everything, for ever."""
    for _ in range(20):
        with contextlib.suppress(BaseException):
            time.sleep(5)
    return "swallowed"


def in_thread(function):
    """Result or error of `function` on a thread that is not the main one."""
    outcome = []

    def work():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return outcome[0]


def test_returns_the_result_and_passes_errors_on():
    assert call_within(1.0, lambda a, b: a + b, 2, 3) == 5
    with pytest.raises(ZeroDivisionError):
        call_within(1.0, lambda: 1 / 0)


def test_stops_a_call_that_does_not_end():
    start = time.perf_counter()
    with pytest.raises(TimeLimitExceeded):
        call_within(0.05, spin)
    assert time.perf_counter() - start < 1.0


def test_a_call_that_swallows_the_interruption_is_still_over_the_limit():
    start = time.perf_counter()
    with pytest.raises(TimeLimitExceeded):
        call_within(0.05, swallow)
    assert time.perf_counter() - start < 3.0


def test_puts_back_the_handler_and_leaves_no_timer():
    fired = []
    earlier = signal.signal(signal.SIGALRM, lambda *_: fired.append(True))
    try:
        with pytest.raises(TimeLimitExceeded):
            call_within(0.02, spin)
        call_within(0.02, int)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        time.sleep(0.06)
        assert fired == []
        signal.raise_signal(signal.SIGALRM)
        assert fired == [True]
    finally:
        signal.signal(signal.SIGALRM, earlier)


def test_works_on_other_threads():
    before = threading.active_count()
    assert in_thread(lambda: call_within(1.0, int, "7")) == 7
    assert isinstance(in_thread(lambda: call_within(1.0, int, "x")), ValueError)
    assert isinstance(in_thread(lambda: call_within(0.05, spin)), TimeLimitExceeded)
    assert threading.active_count() == before  # The runaway thread was ended.
