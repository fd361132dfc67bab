"""From a score, a failure or a hang to a `Grade`: the one place, in this process and in workers alike."""

import math
import numbers
from collections.abc import Callable

from octavo.tasks.time_limit import TimeLimitExceeded, call_within
from octavo.tasks.types import Grade, GradeStatus


def grade_within(seconds: float, score: Callable[..., object], *arguments: object) -> Grade:
    """Call `score(*arguments)` under a time limit: its number clamped to [0, 1], ERROR or TIMEOUT; never raises.

    ERROR also for what is no finite number: a verifier that answers with NaN or text is broken, not strict.
    """
    try:
        value = call_within(seconds, score, *arguments)
    except TimeLimitExceeded:
        return timeout(seconds)
    except Exception as error:
        return Grade(GradeStatus.ERROR, detail=f"{type(error).__name__}: {error}")
    if not isinstance(value, numbers.Real):
        return Grade(GradeStatus.ERROR, detail=f"the verifier returned {shown(value)}, expected a number in 0 to 1")
    if not math.isfinite(value):
        return Grade(GradeStatus.ERROR, detail=f"the verifier scored {value}")
    return Grade(GradeStatus.OK, score=min(1.0, max(0.0, float(value))))


def timeout(seconds: float) -> Grade:
    """The grade of an answer whose verifier did not come to an end."""
    return Grade(GradeStatus.TIMEOUT, detail=f"the verifier took over {seconds:g} s")


def shown(value: object) -> str:
    """Its type and how it begins; the value is foreign, so even showing it may fail."""
    try:
        return f"{type(value).__name__} {str(value)[:40]!r}"
    except Exception:
        return type(value).__name__
