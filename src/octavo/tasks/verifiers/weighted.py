"""A weighted sum of verifiers."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from octavo.config import Config
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.choice import ChoiceConfig
from octavo.tasks.verifiers.code import CodeConfig
from octavo.tasks.verifiers.exact import ExactConfig
from octavo.tasks.verifiers.gym import GymVerifierConfig
from octavo.tasks.verifiers.json_schema import JsonSchemaConfig
from octavo.tasks.verifiers.math import MathConfig
from octavo.tasks.verifiers.numeric import NumericConfig
from octavo.tasks.verifiers.python import PythonConfig
from octavo.tasks.verifiers.regex import RegexConfig
from octavo.tasks.verifiers.verifier import Verifier

SimpleConfig = Annotated[
    ExactConfig
    | NumericConfig
    | ChoiceConfig
    | RegexConfig
    | MathConfig
    | JsonSchemaConfig
    | GymVerifierConfig
    | CodeConfig
    | PythonConfig,
    Field(discriminator="kind"),
]
"""Any verifier that is no sum."""


class WeightedPart(Config):
    """One verifier of a sum."""

    verifier: SimpleConfig
    weight: float = Field(default=1.0, gt=0)
    """Relative to the other parts."""


class WeightedConfig(Config):
    """Several verifiers; only an answer that all of them score full is right."""

    kind: Literal["weighted"] = "weighted"
    parts: tuple[WeightedPart, ...] = Field(min_length=1)
    """The verifiers and their weights."""


class WeightedVerifier(Verifier):
    """Sum of weight times score over the sum of weights. Where one part fails, the sum fails: half a score is none."""

    def __init__(self, parts: Sequence[tuple[Verifier, float]]) -> None:
        self._parts = list(parts)
        self.foreign = any(verifier.foreign for verifier, _ in parts)
        self.limits_itself_seconds = sum(verifier.limits_itself_seconds for verifier, _ in parts)

    def score(self, problem: Problem, answer: str) -> float:
        total = sum(weight for _, weight in self._parts)
        return sum(weight * verifier.score(problem, answer) for verifier, weight in self._parts) / total

    def check(self, problem: Problem) -> None:
        for verifier, _ in self._parts:
            verifier.check(problem)

    def gold_text(self, value: object) -> str | None:
        texts = {verifier.gold_text(value) for verifier, _ in self._parts} - {None}
        return texts.pop() if len(texts) == 1 else None

    def prepare(self) -> None:
        for verifier, _ in self._parts:
            verifier.prepare()

    def together(self, golds: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(way for verifier, _ in self._parts for way in verifier.together(golds)))

    def record(self) -> Mapping[str, Any]:
        return {key: value for verifier, _ in self._parts for key, value in verifier.record().items()}
