"""What came of it: before and after on the same held-out questions, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from octavo.console import interval
from octavo.errors import DataError
from octavo.evals import statistics
from octavo.evals.evaluate import Evaluation
from octavo.evals.perplexity import TextScore
from octavo.rundir import RunDir
from octavo.storage import read_json

_CHANCE = 0.05


@dataclass(frozen=True)
class Outcome:
    """Shares of right answers on held-out questions, with 95% intervals; the difference is paired by question."""

    questions: int
    samples: int
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    difference: float
    difference_low: float
    difference_high: float
    p_value: float
    text_before: float
    """Bits a byte of text that has nothing to do with the questions."""
    text_after: float
    failed_gradings: int

    @property
    def more_than_chance(self) -> bool:
        return bool(self.p_value < _CHANCE)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "more_than_chance": self.more_than_chance}


def outcome(run: RunDir) -> Outcome:
    """Of a finished run. Raises DataError where not one question could be graded both times."""
    before, after = (Evaluation.parse(read_json(run.stage(s).evaluation), s) for s in ("before", "after"))
    shares = [_shares(before), _shares(after)]
    common = sorted(shares[0].keys() & shares[1].keys())
    if not common:
        raise DataError(f"{run.path}: no question could be graded both before and after")
    first, second = ([one[question] for question in common] for one in shares)
    compared = statistics.compare(first, second)
    texts = [TextScore.parse(read_json(run.stage(s).text_score), s) for s in ("text-before", "text-after")]
    return Outcome(
        questions=len(common),
        samples=before.config.samples,
        before=before.overall.pass_at_1,
        before_low=before.overall.low,
        before_high=before.overall.high,
        after=after.overall.pass_at_1,
        after_low=after.overall.low,
        after_high=after.overall.high,
        difference=compared.difference,
        difference_low=compared.low,
        difference_high=compared.high,
        p_value=compared.p_value,
        text_before=texts[0].bits_per_byte,
        text_after=texts[1].bits_per_byte,
        failed_gradings=before.overall.failed_gradings + after.overall.failed_gradings,
    )


def describe(found: Outcome, folder: Path, adapter: Path | None) -> list[str]:
    """Lines for the user."""
    verdict = "more than chance" if found.more_than_chance else "no more than chance may give"
    change = found.text_after / found.text_before - 1
    lines = [
        f"Right answers on {found.questions} held-out questions, {found.samples} "
        f"{'try' if found.samples == 1 else 'tries'} each:",
        f"  before      {found.before:6.1%}   (95% interval {interval(found.before_low, found.before_high)})",
        f"  after       {found.after:6.1%}   (95% interval {interval(found.after_low, found.after_high)})",
        f"  difference {100 * found.difference:+6.1f} points (95% interval {100 * found.difference_low:+.1f} to "
        f"{100 * found.difference_high:+.1f}, paired; p = {found.p_value:.2g}): {verdict}",
        f"Forgetting: {found.text_before:.3f} bits a byte of other text before, {found.text_after:.3f} after "
        f"({change:+.1%}).",
    ]
    if found.failed_gradings:
        lines.append(f"{found.failed_gradings} answers could not be graded, and count nowhere.")
    if adapter is not None:
        lines.append(f"The adapter, in peft's layout: {adapter}")
    return [*lines, f"Talk to it: octavo chat {folder}"]


def _shares(evaluation: Evaluation) -> Mapping[str, float]:
    """Question -> share of its graded samples that are right."""
    shares = {}
    for record in evaluation.records:
        graded = [correct for correct in record.correct if correct is not None]
        if graded:
            shares[record.id] = sum(graded) / len(graded)
    return shares
