"""`octavo adapt --check`: only look. What the data is, how training would see it, and whether its verifier is sound."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console

from octavo.adapt.compose import Composition
from octavo.adapt.material import Material
from octavo.data.examples import Example
from octavo.data.preview import preview_examples, print_preview
from octavo.stages.self_test import try_out
from octavo.tasks.asking import AskingConfig
from octavo.tasks.questions import QuestionsTask
from octavo.tasks.self_test import SelfTestReport, require_sound
from octavo.text.messages import Message
from octavo.text.tokenizer import Tokenizer

_TRIED = 32


def check(material: Material, composed: Composition, tokenizer: Tokenizer, context_tokens: int) -> list[SelfTestReport]:
    """Print what there is. Raises GradingError with the example that broke a verifier."""
    console = Console()
    for line in summary(material, composed):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for task in material.mixture.tasks:
        if isinstance(task, QuestionsTask):
            learned = "sft" in composed.method
            examples = [_as_asked(example, task, material.asking, learned) for example in task.sets.train]
            shown = preview_examples(tokenizer, examples, context_tokens, learned)
            print_preview(shown, console)
    reports = []
    for task in material.mixture.tasks if material.checkable else ():
        report = try_out(task, _TRIED, composed.recipe.seed)
        reports.append(report)
        console.print(f"Verifier of {task.name}, tried on {report.problems} questions:", highlight=False, markup=False)
        for probe in report.probes:
            said = "sound" if probe.sound else "FAILED"
            more = f", {probe.unscored} could not be graded" if probe.unscored else ""
            console.print(
                f"  {probe.name.replace('_', ' '):16} {probe.tried:4} tries: {said}{more}",
                highlight=False,
                markup=False,
            )
        require_sound(report)
    return reports


def _as_asked(example: Example, task: QuestionsTask, asking: AskingConfig, learned: bool) -> Example:
    """With the words around the question, and a bare answer as training writes it."""
    reply = example.reply
    if reply is None and learned and example.answer is not None:
        reply = Message("assistant", asking.written(example.answer))
    return replace(example, messages=asking.messages(task.asked(example)), reply=reply)


def summary(material: Material, composed: Composition) -> list[str]:
    """What was found and chosen, in lines."""
    lines = [material.questions.describe()] if material.questions else []
    train = "without end" if material.train is None else str(material.train)
    lines.append(
        f"Questions: {train} to train on, {material.validation or 'some of these'} to choose the best weights by, "
        f"{material.held_out} held out to measure by."
    )
    lines += [f"warning: {warning}" for warning in material.warnings]
    for name, task in composed.recipe.tasks.items():
        verifier: Any = getattr(task, "verifier", None)
        judged = f"verifier {verifier.kind}" if verifier is not None else "reasoning-gym's own verifier"
        lines.append(f"{name}: {judged}; the answer is read as {composed.recipe.asking.reading}.")
    return [*lines, *composed.reasons]
