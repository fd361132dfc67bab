"""A recipe: named stages in order, each reading what stages above it made. Parsing and checking; `press.py` runs it.

A stage's *identity* is everything that decides what it makes: its kind, its config, its seed, the recipe's tasks and
evaluation where it uses them, the content of the files it reads and the identities of the stages it reads. Its
fingerprint is the sha256 of that. Two stages with equal fingerprints make the same thing, so a finished one is not run
again, and training state of another fingerprint is never resumed from.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from octavo.config import Config, apply_overrides, nearest
from octavo.disclosure import sha256_of
from octavo.engine.config import EngineConfig
from octavo.errors import ConfigError
from octavo.evals.evaluate import EvaluationConfig
from octavo.stages import AnyStage
from octavo.stages.corpora import SolutionsCorpus, WorkedCorpus
from octavo.stages.stage import MODEL_KINDS
from octavo.tasks.asking import AskingConfig
from octavo.tasks.build import TaskConfig
from octavo.world import derive_seed

IDENTITY_VERSION = 1
"""Raised when the same config begins to mean something else, so that old results are not taken for new ones."""


OLD = "old"
"""Folder of a run for what changed stages had made before."""
_DRAWING = ("eval", "sample", "grpo", "on_policy_distill", "self_test")
"""Kinds that need tasks; others may do without."""
_NO_TOKENIZER = 1
"""Stands for the vocabulary of a model whose tokenizer is no stage, until that is found to be an error."""


class Recipe(Config):
    """The whole of a run. `octavo run` writes it, resolved, into the run folder before the first step."""

    name: str
    """Letters, digits, `-` and `_`; the run folder's name."""
    description: str = ""
    seed: int = Field(default=0, ge=0)
    """Every stage derives its own seed from this and its name."""
    threads: int | None = Field(default=None, gt=0)
    """Threads of torch; None: as many as torch takes. Results are equal bit for bit only at equal thread counts."""
    tasks: dict[str, TaskConfig] = Field(default_factory=dict)
    """Name -> task: the problems that solutions, rollouts and evaluations are drawn from, mixed by weight."""
    asking: AskingConfig = AskingConfig()
    """How problems are put to models, and replies are read."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every `eval` stage measures."""
    engine: EngineConfig = EngineConfig()
    """How completions are drawn: speed and memory only."""
    stages: dict[str, AnyStage]
    """In the order in which they run; a stage reads only what stands above it."""
    result: str
    """The stage whose model the run folder stands for, in `octavo chat runs/NAME`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (self.name, *self.stages):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"the name {name!r} must be letters, digits, - and _, as it names a folder")
        if OLD in self.stages:
            raise ValueError(f"no stage may be named {OLD!r}: what changed stages had made before is kept there")
        order = list(self.stages)
        for position, (name, stage) in enumerate(self.stages.items()):
            if not self.tasks and stage.kind in _DRAWING:
                raise ValueError(f"stages.{name}: kind {stage.kind} draws problems, and the recipe has no tasks")
            for field, source in stage.inputs().items():
                self._check_input(f"stages.{name}.{field}", source, order[:position], stage.accepts[field])
            corpus = stage.read_corpus()
            for task in corpus.tasks or () if isinstance(corpus, SolutionsCorpus | WorkedCorpus) else ():
                if task not in self.tasks:
                    raise ValueError(f"stages.{name}.corpus: no task is named {task!r}{nearest(task, self.tasks)}")
        self._check_input("result", self.result, order, MODEL_KINDS)
        return self

    def _check_input(self, where: str, source: str, above: list[str], kinds: tuple[str, ...]) -> None:
        if source not in self.stages:
            raise ValueError(f"{where}: no stage is named {source!r}{nearest(source, self.stages)}")
        if source not in above:
            raise ValueError(f"{where}: stage {source!r} does not stand above; a stage reads only what stands above it")
        if (kind := self.stages[source].kind) not in kinds:
            raise ValueError(f"{where}: expected a stage of kind {' or '.join(kinds)}, but {source!r} is {kind}")

    def labelled_tasks(self) -> dict[str, TaskConfig]:
        """The tasks, each called as the recipe calls it."""
        return {name: task.model_copy(update={"label": name}) for name, task in self.tasks.items()}

    def stage_seed(self, stage: str) -> int:
        return derive_seed(self.seed, stage)

    def readers(self, stage: str) -> list[str]:
        """Stages that depend on `stage`, directly or not, in order."""
        reached = {stage}
        for name, other in self.stages.items():
            if reached & set(other.inputs().values()):
                reached.add(name)
        return [name for name in self.stages if name in reached - {stage}]


def shipped_recipes() -> dict[str, str]:
    """Name -> YAML text of the recipes inside the package."""
    folder = resources.files("octavo") / "recipes"
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in sorted(files, key=lambda f: f.name)
    }


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file; with `--set` overrides applied. Raises ConfigError."""
    shipped = shipped_recipes()
    path = Path(name_or_path)
    if name_or_path in shipped:
        text = shipped[name_or_path]
    elif path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {path}: cannot be read as UTF-8 text ({error})") from error
    else:
        raise ConfigError(
            f"no recipe is named {name_or_path!r} and no such file exists{nearest(name_or_path, shipped)}"
        )
    return parse_recipe(text, f"recipe {name_or_path}", overrides)


def parse_recipe(text: str, where: str, overrides: Iterable[str] = ()) -> Recipe:
    """Recipe from YAML. The model's `vocab_size` is derived from its tokenizer stage where it is not given."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict) or not isinstance(values.get("stages"), dict):
        raise ConfigError(f"{where}: expected a mapping with a mapping `stages`")
    values = apply_overrides(values, [full_path(override, values) for override in overrides])
    _derive_vocab_sizes(values["stages"])
    return Recipe.parse(values, where)


def full_path(override: str, values: Mapping[str, Any]) -> str:
    """`base.steps=1` -> `stages.base.steps=1`: a first name that is no key of the recipe is a stage's."""
    first = override.partition("=")[0].partition(".")[0].strip()
    if first in Recipe.model_fields:
        return override
    if first in values["stages"]:
        return f"stages.{override}"
    raise ConfigError(
        f"--set {override!r}: no key or stage {first!r}{nearest(first, [*values['stages'], *Recipe.model_fields])}"
    )


def _derive_vocab_sizes(stages: dict[str, Any]) -> None:
    """Give models without a `vocab_size` their tokenizer's; which stage that must be, `Recipe` checks."""
    for stage in stages.values():
        if isinstance(stage, dict) and isinstance(model := stage.get("model"), dict):
            tokenizer = stages.get(str(stage.get("tokenizer")))
            size = tokenizer.get("vocab_size") if isinstance(tokenizer, dict) else None
            model.setdefault("vocab_size", size or _NO_TOKENIZER)


@dataclass(frozen=True)
class Identity:
    """Everything that decides what a stage makes (`facts`, plain values), and its sha256."""

    facts: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def identities(recipe: Recipe) -> dict[str, Identity]:
    """Identity of every stage. Reads the files that stages read. Raises DataError where one is missing."""
    plain = recipe.dump()
    made: dict[str, Identity] = {}
    task_files = {str(path): sha256_of(path) for task in recipe.tasks.values() for path in task.files()}
    for name, stage in recipe.stages.items():
        facts: dict[str, Any] = {
            "version": IDENTITY_VERSION,
            "config": stage.decisive(),
            "seed": recipe.stage_seed(name),
            "inputs": {field: made[source].fingerprint for field, source in stage.inputs().items()},
            "files": stage.files() | (task_files if "tasks" in stage.uses else {}),
        }
        for shared in stage.uses:
            facts[shared] = plain[shared]
        made[name] = Identity(facts)
    return made


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two identities, as `steps 100 -> 200`; inputs as `another base`."""
    before, after = _flat(old), _flat(new)
    changed = [
        key for key in sorted(before.keys() | after.keys()) if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    ]
    texts = []
    for key in changed:
        if key.startswith(("inputs.", "files.")):
            texts.append(f"another {key.partition('.')[2]}")
        else:
            texts.append(f"{key.removeprefix('config.')} {before.get(key, _ABSENT)} -> {after.get(key, _ABSENT)}")
    return texts


_ABSENT = "nothing"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, Mapping) and values:
        return {key: leaf for name, child in values.items() for key, leaf in _flat(child, f"{prefix}.{name}").items()}
    return {prefix.removeprefix("."): values}
