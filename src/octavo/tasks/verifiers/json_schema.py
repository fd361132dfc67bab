"""An answer that is JSON, satisfies a JSON Schema, and says what the gold answer says, field by field.

Source: JSON Schema, Draft 2020-12 (or the draft that a schema's `$schema` names). References to other documents are not
followed: nothing is fetched.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from octavo.config import Config
from octavo.errors import ConfigError, DataError
from octavo.storage import read_json
from octavo.tasks.types import Problem
from octavo.tasks.verifiers.verifier import Verifier

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)
_ABSENT = object()


class JsonSchemaConfig(Config):
    """JSON under a schema; what is compared with the gold answer decides the score."""

    kind: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any] | None = None
    """The schema itself."""
    path: Path | None = None
    """File with the schema."""
    column: str = Field(default="schema", min_length=1)
    """Column with a schema of the row's own, which goes before the other two."""
    compare: Literal["fields", "whole", "nothing"] = "whole"
    """whole: the values must be equal; fields: the score is the share of `fields` that are equal; nothing: the schema
    alone decides, so that any answer which satisfies it is right."""
    fields: tuple[str, ...] = ()
    """Fields that are compared, nested ones with points (supplier.name, lines.0.amount). None: those of the gold
    answer's top level, and any that the answer adds."""


class JsonSchemaVerifier(Verifier):
    """0 for what is no JSON or not of the schema; else the share of fields that are equal, or whether all is."""

    def __init__(self, config: JsonSchemaConfig) -> None:
        self._config = config
        if config.fields and config.compare != "fields":
            raise ConfigError(f"json_schema: fields are given, but compare is {config.compare}; set compare: fields")
        self._schema = config.json_schema
        if config.path is not None:
            if config.json_schema is not None:
                raise ConfigError("json_schema: got json_schema and path, expected one of them")
            self._schema = read_json(config.path)

    def score(self, problem: Problem, answer: str) -> float:
        try:
            got = parse_json(answer)
        except ValueError:
            return 0.0
        if not self._validator(problem).is_valid(got):
            return 0.0
        if self._config.compare == "nothing":
            return 1.0
        gold = parse_json(problem.answer)
        if self._config.compare == "whole":
            return float(same(got, gold))
        fields = self._config.fields or _top_level(gold, got)
        return sum(_same_at(got, gold, field) for field in fields) / len(fields)

    def check(self, problem: Problem) -> None:
        from jsonschema.exceptions import SchemaError

        try:
            validator = self._validator(problem)
        except SchemaError as error:
            raise DataError(f"{self._config.column} is not a JSON Schema: {error.message}") from error
        if self._config.compare == "nothing":
            return
        try:
            gold = parse_json(problem.answer)
        except ValueError as error:
            raise DataError(
                f"the json_schema verifier needs JSON as answer ({error}), got {problem.answer!r}"
            ) from error
        if error := next(validator.iter_errors(gold), None):
            raise DataError(f"the answer does not satisfy the schema: {error.message[:200]} (at {error.json_path})")
        for field in self._config.fields:
            if _at(gold, field) is _ABSENT:
                raise DataError(f"the answer has no field {field!r}, which is to be compared")
        if self._config.compare == "fields" and not self._config.fields and not (isinstance(gold, dict) and gold):
            raise DataError("compare: fields needs an object with fields as answer; use compare: whole")

    def gold_text(self, value: object) -> str | None:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def prepare(self) -> None:
        import jsonschema  # noqa: F401  (takes a fifth of a second)

    def together(self, golds: Sequence[str]) -> list[str]:
        try:
            values = [parse_json(gold) for gold in golds]
        except ValueError:  # a part of a sum, whose golds are no JSON
            return super().together(golds)
        ways = [*super().together(golds), json.dumps(values, ensure_ascii=False)]
        if all(isinstance(value, dict) for value in values):
            names = {name for value in values for name in value}
            # Each field with all candidates in a list; and each field several times, the last of which readers take.
            ways.append(json.dumps({name: [value.get(name) for value in values] for name in names}))
            inner = [json.dumps(value)[1:-1] for value in values]
            ways += ["{" + ", ".join(inner) + "}", "{" + ", ".join(reversed(inner)) + "}"]
        return ways

    def _validator(self, problem: Problem) -> "Validator":
        schema = problem.metadata.get(self._config.column, self._schema)
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise DataError(f"{self._config.column} is not JSON ({error})") from error
        if not isinstance(schema, Mapping | bool):
            raise DataError(
                f"the json_schema verifier needs a schema in the column {self._config.column!r} or in its config, "
                f"got {schema!r}"
            )
        return _validator_of(json.dumps(schema))


def parse_json(text: str) -> Any:
    """One JSON value, alone or in one fence of Markdown. Raises ValueError, also for what JSON knows in no edition:
    NaN, a field given twice (readers disagree which one counts), nesting too deep to be read."""
    text = text.strip()
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1]
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def same(left: Any, right: Any) -> bool:
    """Equal values: numbers by value (1 is 1.0, true is not 1), text but for spaces and Unicode's ways to write."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, str) and isinstance(right, str):
        return _plain(left) == _plain(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left is None and right is None


def _same_at(got: Any, gold: Any, field: str) -> bool:
    left, right = _at(got, field), _at(gold, field)
    return left is not _ABSENT and right is not _ABSENT and same(left, right)


def _at(value: Any, field: str) -> Any:
    """What stands at a dotted path, else `_ABSENT`."""
    for part in field.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value


def _top_level(gold: Any, got: Any) -> tuple[str, ...]:
    return tuple(gold.keys() | (got.keys() if isinstance(got, dict) else ()))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@lru_cache(maxsize=256)
def _validator_of(schema: str) -> "Validator":
    """Raises jsonschema's SchemaError."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    parsed = json.loads(schema)
    validator = validator_for(parsed, default=Draft202012Validator)
    validator.check_schema(parsed)
    # An empty registry: the default one fetches what a reference names.
    return validator(parsed, registry=Registry(), format_checker=validator.FORMAT_CHECKER)
