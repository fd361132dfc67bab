"""From what there is to learn from to a recipe: an ordinary one, that can be read, edited and run again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octavo.adapt.material import Material
from octavo.adapt.wishes import Method, Wishes
from octavo.config import Config, apply_overrides
from octavo.errors import ConfigError
from octavo.recipe import Recipe, full_path

MEASURING_SHARE = 0.15
"""Of the minutes: measuring before and after. The rest is training, with its own measuring."""
COLD_START_SHARE = 0.75
"""Of the training's minutes, where reinforcement follows: as in the shipped recipes, of which docs/adapt.md tells."""
SAMPLING_SHARE = 0.4
"""Of the training's minutes: what a teacher takes."""
_EPOCHS = 4
_STEP_TOKENS = 512
"""Of imitation. In the same minutes, many small steps teach a small model more than few large ones (docs/adapt.md)."""
_ROLLOUT_PROMPTS = 8
_SAMPLES = 8
_RATES = {"sft": (3e-4, 2e-3), "grpo": (1e-5, 1e-4)}
"""Peak learning rates: of all weights, of adapters."""


@dataclass(frozen=True)
class Composition:
    """A recipe, which method it is, and why."""

    recipe: Recipe
    values: dict[str, Any]
    """The recipe as one would write it."""
    method: tuple[str, ...]
    """Its training stages."""
    reasons: tuple[str, ...]
    """Lines for the user: what was chosen, and how the minutes are divided."""


def compose(wishes: Wishes, material: Material, name: str) -> Composition:
    """Raises ConfigError for a method that the data does not allow."""
    method = _choose(wishes, material)
    learned = {"sft": ("sft",), "grpo": ("grpo",), "distill": ("distill",), "on-policy": ("on-policy",)}
    stages = learned.get(method, ("sft", "grpo"))
    reasons = [_why(wishes, method, material)]
    minutes = _minutes(wishes.minutes, stages)
    reasons.append(_division(wishes.minutes, minutes))
    longest = _completion_tokens(wishes, material)
    values: dict[str, Any] = {
        "name": name,
        "description": f"octavo adapt {wishes.model} {' '.join(wishes.data)}",
        "seed": wishes.seed,
        **({} if wishes.threads is None else {"threads": wishes.threads}),
        "tasks": {task: _short(config) for task, config in material.tasks.items()},
        "asking": _short(material.asking),
        "evaluation": _evaluation(material, longest),
        "stages": _stages(wishes, material, stages, minutes, longest),
        "result": stages[-1],
    }
    values = apply_overrides(values, [full_path(override, values) for override in wishes.overrides])
    return Composition(Recipe.parse(values, "octavo adapt"), values, stages, tuple(reasons))


def _choose(wishes: Wishes, material: Material) -> str:
    has_worked = material.worked != 0
    method: Method = wishes.method
    if method in ("distill", "on-policy") and wishes.teacher is None:
        raise ConfigError(f"--method {method} needs a --teacher: a model to learn from")
    if wishes.teacher is not None and method in ("sft", "grpo"):
        raise ConfigError(f"--teacher goes with --method distill or on-policy, got {method}")
    if method == "sft" and not has_worked and not material.worked_tokens:
        raise ConfigError("--method sft: the data has neither worked answers nor gold ones to imitate")
    if method in ("grpo", "distill") and not material.checkable:
        raise ConfigError(
            f"--method {method} needs answers that can be checked: a column answer, or a --verifier; "
            "the data has worked answers only (--method sft)"
        )
    if method != "auto":
        return method
    if wishes.teacher is not None:
        return "distill"
    if not material.checkable:
        return "sft"
    return "sft, then grpo" if has_worked else "grpo"


def _why(wishes: Wishes, method: str, material: Material) -> str:
    if wishes.method != "auto":
        return f"Method: {method}, as asked."
    if method == "distill":
        return "Method: distill, as there is a teacher: its verified answers are learned."
    if method == "sft":
        return "Method: sft, as there are worked answers, and nothing to check others by."
    if method == "grpo":
        return "Method: grpo, as answers can be checked, and there are no worked ones to begin with."
    count = "worked answers" if material.worked is None else f"{material.worked} worked answers"
    return f"Method: sft on {count}, then grpo, as answers can be checked."


def _minutes(minutes: float, stages: Sequence[str]) -> dict[str, float]:
    """Minutes of each part that is bounded by time."""
    training = minutes * (1 - MEASURING_SHARE)
    if len(stages) == 2:
        first = training * COLD_START_SHARE
        return {"sft": first, "grpo": training - first}
    if stages == ("distill",):
        sampling = training * SAMPLING_SHARE
        return {"sample": sampling, "distill": training - sampling}
    return {stages[0]: training}


def _division(whole: float, minutes: dict[str, float]) -> str:
    parts = [f"{part:.3g} of {name}" for name, part in minutes.items()]
    return (
        f"Minutes: {whole:g} in all; at most {' and '.join(parts)}, measuring on the way included, and about "
        f"{whole * MEASURING_SHARE:.2g} to measure before and after."
    )


def _completion_tokens(wishes: Wishes, material: Material) -> int:
    """Longest completion that is drawn: room for what is learned, and some more."""
    if wishes.max_tokens is not None:
        return wishes.max_tokens
    if material.reply_tokens:
        wanted = 1.25 * max(material.reply_tokens) + 8
    elif material.asking.reading == "last_number":
        wanted = 160
    else:
        wanted = max(48, 1.5 * material.gold_tokens + 16)
    return 16 * math.ceil(wanted / 16)


def _evaluation(material: Material, longest: int) -> dict[str, Any]:
    problems = min(material.held_out, 200)
    return {"problems": problems, "samples": 1 if problems >= 100 else 4, "max_tokens": longest}


def _stages(
    wishes: Wishes, material: Material, stages: Sequence[str], minutes: dict[str, float], longest: int
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if material.checkable:
        made["verifiers"] = {"kind": "self_test"}
    made["start"] = {"kind": "open", "weights": wishes.model}
    made["before"] = {"kind": "eval", "row": "before", "model": "start"}
    made["text-before"] = {"kind": "text_score", "model": "start"}
    common: dict[str, Any] = {"validation": _validation(material, longest)}
    if wishes.lora is not None:
        common["lora"] = wishes.lora
    if wishes.teacher is not None:
        made |= _teaching(wishes, stages, minutes, longest)
    model = "start"
    for stage in stages:
        values: dict[str, Any] = {"kind": stage.replace("on-policy", "on_policy_distill"), "model": model}
        match stage:
            case "sft":
                made[stage] = values | _reading(wishes, material, minutes[stage]) | common
                made[stage]["corpus"] = _corpus(material)
            case "distill":
                made[stage] = values | {"data": "samples"} | _reading(wishes, material, minutes[stage]) | common
            case "grpo":
                made[stage] = values | _reinforcement(wishes, material, minutes[stage], longest) | common
            case "on-policy":
                made[stage] = values | {"teacher": "teacher"} | _on_policy(wishes, minutes[stage], longest) | common
        model = stage
    made["after"] = {"kind": "eval", "row": "after", "model": model}
    made["text-after"] = {"kind": "text_score", "model": model}
    return made


def _validation(material: Material, longest: int) -> dict[str, Any]:
    return {"problems": min(material.validation or 64, 64), "max_tokens": longest, "samples": 1}


def _corpus(material: Material) -> dict[str, Any]:
    if material.questions is None:
        return {"kind": "solutions", "documents": 100_000, "styles": {"steps": 1.0}}
    return {"kind": "worked", "bare_answers": material.worked == 0}


def _reading(wishes: Wishes, material: Material, minutes: float) -> dict[str, Any]:
    """What sft and distill share."""
    longest = max(material.worked_tokens, default=_STEP_TOKENS)
    row = 64 * math.ceil(max(longest, 192) / 64)
    tokens = row * max(1, _STEP_TOKENS // row)
    steps = 10_000
    if material.questions is not None and material.worked_tokens:
        steps = max(8, math.ceil(_EPOCHS * sum(material.worked_tokens) / tokens))
    return {
        "optimizer": _optimizer(wishes, "sft"),
        "tokens_per_step": tokens,
        "tokens_per_row": row,
        "micro_batch_tokens": tokens,
        "loop": {
            "steps": steps,
            "minutes": minutes,
            "evaluate_every_steps": min(100, max(5, steps // 4)),
            "schedule": {"warmup_steps": 5, "decay_share": 0.9},
        },
    }


def _reinforcement(wishes: Wishes, material: Material, minutes: float, longest: int) -> dict[str, Any]:
    tagged = material.asking.reading == "tags"
    return {
        "optimizer": _optimizer(wishes, "grpo"),
        "rollouts": {
            "prompts_per_rollout": _ROLLOUT_PROMPTS,
            "samples_per_prompt": _SAMPLES,
            "max_completion_tokens": longest,
            "micro_batch_tokens": max(2048, material.prompt_tokens + longest),
        },
        "rewards": {"accuracy": 1.0, "format": 0.1 if tagged else 0.0, "language": 0.1 if tagged else 0.0},
        "loop": {
            "steps": 10_000,
            "minutes": minutes,
            "evaluate_every_steps": 10,
            "schedule": {"kind": "constant", "warmup_steps": 2},
        },
    }


def _on_policy(wishes: Wishes, minutes: float, longest: int) -> dict[str, Any]:
    return {
        "optimizer": _optimizer(wishes, "sft"),
        "prompts_per_step": 32,
        "max_completion_tokens": longest,
        "micro_batch_tokens": 2048,
        "loop": {"steps": 10_000, "minutes": minutes, "evaluate_every_steps": 10, "schedule": {"warmup_steps": 3}},
    }


def _teaching(wishes: Wishes, stages: Sequence[str], minutes: dict[str, float], longest: int) -> dict[str, Any]:
    """A teacher of this machine or behind a server, and what it answers."""
    assert wishes.teacher is not None
    server = wishes.teacher.startswith(("http://", "https://"))
    if server and stages == ("on-policy",):
        raise ConfigError("--method on-policy needs a --teacher on this machine: a server does not tell its weights")
    made: dict[str, Any] = {} if server else {"teacher": {"kind": "open", "weights": wishes.teacher}}
    if stages == ("distill",):
        asked: dict[str, Any] = {"model": "teacher"}
        if server:
            if wishes.teacher_model is None:
                raise ConfigError(f"--teacher {wishes.teacher} needs a --teacher-model: what the server calls it")
            asked = {"teacher": {"url": wishes.teacher, "model": wishes.teacher_model}}
            if wishes.teacher_key is not None:
                asked["teacher"]["key_env"] = wishes.teacher_key
        made["samples"] = {
            "kind": "sample",
            **asked,
            "problems": 100_000,
            "minutes": minutes["sample"],
            "samples": 4,
            "keep": 2,
            "max_tokens": max(longest, 256),
            "temperature": 0.7,
            "problems_per_chunk": 16,
        }
    return made


def _short(config: Config) -> dict[str, Any]:
    """What differs from the defaults; the kind always."""
    plain = config.dump()
    values = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name == "kind" or value != field.get_default(call_default_factory=True):
            values[name] = _short(value) if isinstance(value, Config) else plain[name]
    return values


def _optimizer(wishes: Wishes, stage: str) -> dict[str, Any]:
    whole, adapters = _RATES[stage]
    return {
        "kind": "adamw",
        "learning_rate": whole if wishes.lora is None else adapters,
        "weight_decay": 0.0,
        "betas": [0.9, 0.99],
    }
