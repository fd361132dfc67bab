"""`octavo eval`: a model on tasks named on the command line, or on the tasks of the run that it comes from."""

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from octavo.console import interval, plain_table
from octavo.engine.engine import Engine
from octavo.errors import ConfigError
from octavo.evals.evaluate import Evaluation, EvaluationConfig, Scores, evaluate
from octavo.model.quantize import Quantization
from octavo.models import find_model
from octavo.recipe import Recipe, parse_recipe
from octavo.rundir import RunDir
from octavo.tasks.asking import PLAINLY
from octavo.tasks.build import TaskConfig, build_mixture
from octavo.tasks.gym import ReasoningGymConfig
from octavo.tasks.jsonl import JsonlTaskConfig
from octavo.weights.open import open_model


def assess(
    name: str | Path, specs: list[str], settings: dict[str, Any], quantization: Quantization | None = None
) -> Evaluation:
    """Evaluate MODEL on `specs` (empty: its recipe's tasks); `settings` override those of the recipe, or the defaults.

    Raises ConfigError, DataError, CheckpointError or GradingError.
    """
    path = find_model(name)
    recipe = recipe_of(Path(name))
    if specs:
        tasks = [parse_task(spec) for spec in specs]
    elif recipe is not None:
        tasks = list(recipe.labelled_tasks().values())
    else:
        raise ConfigError(f"{name} is no run folder, so it has no tasks of its own: name a task, such as chain_sum")
    defaults = recipe.evaluation if recipe is not None else EvaluationConfig()
    config = EvaluationConfig.parse(defaults.dump() | settings, "evaluation")
    mixture = build_mixture(tasks)
    model, tokenizer = open_model(path, quantization)
    engine = Engine(model, tokenizer, recipe.engine if recipe is not None else None)
    asking = recipe.asking if recipe is not None else PLAINLY
    return evaluate(engine, tokenizer, mixture, config, asking)


def parse_task(spec: str) -> TaskConfig:
    """`name`, `name:key=value,key=value` or a path that ends in .jsonl (all of its questions). Raises ConfigError."""
    if spec.endswith(".jsonl"):
        return JsonlTaskConfig(path=Path(spec), measure_only=True)
    name, _, text = spec.partition(":")
    params = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"task {spec!r}: expected {name}:key=value,key=value, got {pair!r}")
        try:
            params[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"task {spec!r}: the value of {key} is not YAML") from error
    return ReasoningGymConfig(name=name, params=params, label=spec)


def recipe_of(path: Path) -> Recipe | None:
    """The recipe of a run folder, or of a stage or model folder inside one."""
    if not path.exists():
        return None
    for folder in (path, *path.absolute().parents[:2]):
        config = RunDir(folder).config_path
        if config.is_file():
            return parse_recipe(config.read_text(encoding="utf-8"), str(config))
    return None


def as_plain(evaluation: Evaluation) -> dict[str, Any]:
    """For --json: figures over all and by task, and how they were measured; without the single problems."""
    return evaluation.model_dump(mode="json", exclude={"records"})


def print_evaluation(evaluation: Evaluation) -> None:
    config = evaluation.config
    k = config.samples
    table = plain_table()
    table.add_column("task", overflow="fold")
    for name in ("problems", "pass@1", "95% interval", f"pass@{k}", f"maj@{k}", "length", "finished"):
        table.add_column(name, justify="right")
    rows = list(evaluation.tasks.items())
    if len(rows) > 1:
        rows.append(("all", evaluation.overall))
    for name, scores in rows:
        table.add_row(name, *_cells(scores))
    console = Console()
    console.print(table)
    console.print(
        f"{config.samples} samples a problem, temperature {config.temperature}, top-p {config.top_p}, "
        f"at most {config.max_tokens} tokens, seed {config.seed}.",
        highlight=False,
    )
    if evaluation.overall.failed_gradings:
        first = next(failure for record in evaluation.records for failure in record.failures)
        failed = f"{evaluation.overall.failed_gradings} samples could not be graded and are left out"
        console.print(f"{failed}; the first: {first}", highlight=False, markup=False)


def _cells(scores: Scores) -> tuple[str, ...]:
    return (
        str(scores.problems),
        f"{scores.pass_at_1:.1%}",
        interval(scores.low, scores.high),
        f"{scores.pass_at_k:.1%}",
        f"{scores.maj_at_k:.1%}",
        "-" if scores.mean_completion_tokens is None else f"{scores.mean_completion_tokens:.0f}",
        "-" if scores.finished_share is None else f"{scores.finished_share:.1%}",
    )
