"""`octavo adapt`: look at the data, compose a recipe, run it, say what came of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from octavo.adapt.check import check, summary
from octavo.adapt.closing import Outcome, describe, outcome
from octavo.adapt.compose import Composition, compose
from octavo.adapt.material import Material, look_at
from octavo.adapt.wishes import Wishes, as_yaml
from octavo.console import Display
from octavo.models import find_model
from octavo.press import Press
from octavo.rundir import RunDir
from octavo.text.tokenizer import Tokenizer
from octavo.weights.open import open_model


@dataclass(frozen=True)
class Adaptation:
    """What is to be done, before anything is."""

    folder: Path
    material: Material
    composed: Composition
    tokenizer: Tokenizer
    context_tokens: int


def prepare(wishes: Wishes, out: Path | None) -> Adaptation:
    """Look and compose; nothing is written. Raises OctavoErrors of one line."""
    folder = out or Path("runs") / f"adapt-{_stem(wishes.data[0])}"
    model, tokenizer = open_model(find_model(wishes.model))
    context_tokens = model.config.max_positions
    del model
    material = look_at(wishes, tokenizer, context_tokens)
    return Adaptation(folder, material, compose(wishes, material, _stem(folder.name)), tokenizer, context_tokens)


def look(adaptation: Adaptation) -> None:
    """`--check`."""
    check(adaptation.material, adaptation.composed, adaptation.tokenizer, adaptation.context_tokens)


def recipe_text(adaptation: Adaptation) -> str:
    """The recipe as YAML, without values that stand there anyway."""
    return as_yaml(adaptation.composed.values)


def adapt(adaptation: Adaptation, display: Display, fresh: bool) -> Outcome:
    """Run the recipe, or go on with it, and tell the outcome."""
    for line in summary(adaptation.material, adaptation.composed):
        display.note(line)
    Press(adaptation.composed.recipe, adaptation.folder, display, fresh).run()
    run = RunDir(adaptation.folder)
    found = outcome(run)
    adapter = run.stage(adaptation.composed.recipe.result).adapter
    display.outcome(found.as_dict(), describe(found, adaptation.folder, adapter if adapter.is_dir() else None))
    return found


def _stem(name: str) -> str:
    """A name that a run folder may have."""
    stem = Path(name.partition(":")[0].rstrip("/")).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "data"
