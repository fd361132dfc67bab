"""A template that anybody may have written, compiled once and rendered often, by any thread."""

from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from octavo.errors import CheckpointError, DataError
from octavo.text.sandbox import syntax
from octavo.text.sandbox.budget import Budget, MeteredContext
from octavo.text.sandbox.environment import MeteredEnvironment

_MAX_SOURCE_CHARACTERS = 65_536  # the longest of known models' templates have 20,000
_UNITS = 200_000  # about half a second
_UNITS_A_MESSAGE = 4  # times those of one pass over the template
_MAX_ERROR_CHARACTERS = 300


class SandboxedTemplate:
    """Raises CheckpointError for what is no Jinja, or asks for what no chat template may have."""

    def __init__(self, source: str, where: str = "chat template") -> None:
        """`where` begins every error."""
        self._where = where
        environment = MeteredEnvironment()
        try:
            if len(source) > _MAX_SOURCE_CHARACTERS:
                raise SecurityError(f"it has {len(source)} characters, expected at most {_MAX_SOURCE_CHARACTERS}")
            tree = environment.parse(source)
            self.marks_generation = any(name.name == syntax.OPENING for name in tree.find_all(nodes.Name))
            """Whether it says itself, by `{% generation %}`, what the model writes."""
            self._units = syntax.units(tree)
            code = environment.compile(syntax.Metering().visit(tree))
        except SecurityError as error:
            raise CheckpointError(f"{where}: {error}") from error
        except Exception as error:  # Python's own compiler adds SyntaxError, RecursionError, MemoryError, ...
            raise CheckpointError(f"{where}: not valid Jinja: {_one_line(error)}") from error
        self._template = jinja2.Template.from_code(environment, code, environment.make_globals(None))

    def render(self, variables: Mapping[str, Any], opening: str = "", closing: str = "") -> str:
        """The text, with `opening` and `closing` around what stands in `{% generation %}`.

        `variables` are JSON-like values, `messages` among them; the longer they are, the more work is allowed. Raises
        DataError.
        """
        messages = len(variables.get("messages") or ())
        units = _UNITS + _characters(variables) // 4 + messages * _UNITS_A_MESSAGE * self._units
        context = self._template.new_context({**variables, syntax.OPENING: opening, syntax.CLOSING: closing})
        assert isinstance(context, MeteredContext)
        context.budget = Budget(units)
        try:
            return "".join(self._template.root_render_func(context))
        except Exception as error:  # a template can make any operation fail
            raise DataError(f"{self._where}: {_one_line(error)}") from error


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, (list, tuple)) else 0


def _one_line(error: Exception) -> str:
    what = str(error) if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
    return " ".join(what[:_MAX_ERROR_CHARACTERS].split())
