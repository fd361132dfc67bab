"""A user's own function as verifier: `file.py:score`. It is loaded and called in worker processes only."""

import importlib.util
import inspect
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator

from octavo.config import Config
from octavo.errors import GradingError
from octavo.tasks.grading import shown
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier


class PythonConfig(Config):
    """A function `score(question, answer, gold, **columns) -> float | bool`."""

    kind: Literal["python"] = "python"
    function: str
    """File and function: checks.py:score. It gets the question, the model's answer and the gold answer as text and
    every other column of the row by name, and returns a number in 0 to 1 (1: right), or True or False."""

    @field_validator("function")
    @classmethod
    def _names_both(cls, function: str) -> str:
        path, colon, name = function.rpartition(":")
        if not colon or not path.endswith(".py") or not name.isidentifier():
            raise ValueError(f"expected file.py:function, got {function!r}")
        return function

    @property
    def path(self) -> Path:
        return Path(self.function.rpartition(":")[0])


class PythonVerifier(Verifier):
    """Calls the function. What it raises, or returns out of range, is an error of the verifier and no score."""

    def __init__(self, config: PythonConfig) -> None:
        self._path, self._name = config.path.resolve(), config.function.rpartition(":")[2]
        if not self._path.is_file():
            raise GradingError(f"verifier {config.function}: no file {self._path}")
        self._function: Callable[..., Any] | None = None

    def prepare(self) -> None:
        """Run the file. Raises GradingError with what went wrong in it."""
        if self._function is None:
            self._function = self._load()

    def score(self, problem: Problem, answer: str) -> float:
        self.prepare()
        assert self._function is not None
        value = self._function(problem.question, answer, problem.answer, **self._wanted(problem.metadata))
        if not isinstance(value, numbers.Real) or not -1e-6 <= float(value) <= 1 + 1e-6:
            raise ValueError(f"{self._name} returned {shown(value)}, expected a number in 0 to 1, True or False")
        return float(value)

    def _wanted(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """All columns where the function takes `**columns`, else those that it names."""
        assert self._function is not None
        parameters = inspect.signature(self._function).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        own = list(parameters)[:3]  # question, answer, gold, whatever the function calls them
        return {name: value for name, value in columns.items() if name not in own and (takes_all or name in parameters)}

    def _load(self) -> Callable[..., Any]:
        # The name is one that no import can mean, so the file shadows no module.
        spec = importlib.util.spec_from_file_location(f"octavo verifier {self._path}", self._path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise GradingError(f"verifier {self._path}: cannot be loaded: {type(error).__name__}: {error}") from error
        function = vars(module).get(self._name)
        if not callable(function):
            raise GradingError(f"verifier {self._path}: has no function {self._name!r}")
        return function
