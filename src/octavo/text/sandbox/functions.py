"""Filters, tests and functions that templates may use: those of Jinja that chat templates need, paying first."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from octavo.text.sandbox import syntax
from octavo.text.sandbox.budget import MeteredContext
from octavo.text.sandbox.syntax import check_attribute

_MAX_INDENT = 16
_PLAIN_DATE_FORMAT = re.compile(r"(?:[^%]|%-?[A-Za-z%]){0,100}")  # a width could ask for any length

# Filters that read no more of a value than its length, or its items one by one through another filter or test.
_SHALLOW_FILTERS = ("count", "d", "default", "first", "items", "last", "length", "safe")
_SEQUENCE_FILTERS = ("list", "map", "reject", "rejectattr", "select", "selectattr")
_DEEP_SEQUENCE_FILTERS = ("join", "max", "min", "sort", "unique")
_DEEP_FILTERS = (
    "abs",
    "capitalize",
    "dictsort",
    "e",
    "escape",
    "float",
    "int",
    "lower",
    "replace",
    "reverse",
    "string",
)
_DEEP_FILTERS += ("title", "trim", "upper")
_SHALLOW_TESTS = (
    "boolean",
    "callable",
    "defined",
    "false",
    "float",
    "integer",
    "iterable",
    "mapping",
    "none",
    "number",
)
_SHALLOW_TESTS += ("sameas", "sequence", "string", "true", "undefined")


def filters() -> dict[str, Callable[..., Any]]:
    """By name."""
    known = (*_SHALLOW_FILTERS, *_SEQUENCE_FILTERS, *_DEEP_SEQUENCE_FILTERS, *_DEEP_FILTERS)
    return {
        **{name: _metered_filter(name, FILTERS[name]) for name in known},
        "indent": _indent,
        "tojson": _tojson,
        syntax.ITEMS: _items,
        syntax.PAY: _pay,
        syntax.WEIGH: weigh,
        syntax.COPY: _copy,
    }


def tests() -> dict[str, Callable[..., Any]]:
    """By name."""
    return {
        name: test if name in _SHALLOW_TESTS else _metered_test(test)
        for name, test in TESTS.items()
        if name not in ("filter", "test")
    }


def functions() -> dict[str, Callable[..., Any]]:
    """Global functions by name, beside those of Jinja's sandbox."""
    return {
        "dict": lambda *args, **kwargs: dict(*args, **kwargs),
        "namespace": _namespace,
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
    }


@pass_context
def weigh(context: MeteredContext, value: Any) -> Any:
    """The value, paid for as if it were printed."""
    context.budget.weigh(value)
    return value


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja that pays first, and gives lists for iterators, whose chains would have no bound."""
    lead = _leading_arguments(function)
    takes_items = name in (*_SEQUENCE_FILTERS, *_DEEP_SEQUENCE_FILTERS)
    reads_all = name in (*_DEEP_FILTERS, *_DEEP_SEQUENCE_FILTERS)

    @pass_context
    def metered(context: MeteredContext, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = context.budget
        given = (*args, *kwargs.values())
        for argument in given:
            budget.weigh(argument)
        if takes_items and value:
            value = budget.take(value)
            for argument in given:  # separators are copied, names of attributes are walked for each item
                budget.copy(argument, times=8 * len(value))
        if reads_all:
            budget.weigh(value)
        if name == "trim" and given:
            budget.search(str(value), given[0])
        elif name == "replace" and len(args) > 1:
            budget.replace(str(value), str(args[0]), str(args[1]))
        result = function(*lead(context), value, *args, **kwargs)
        if isinstance(result, Iterator):
            return budget.take(result)
        budget.copy(result)
        return result

    return metered


def _metered_test(function: Callable[..., Any]) -> Callable[..., Any]:
    lead = _leading_arguments(function)

    @pass_context
    def metered(context: MeteredContext, value: Any, *args: Any) -> bool:
        for argument in (value, *args):
            context.budget.weigh(argument)
        return function(*lead(context), value, *args)

    return metered


def _leading_arguments(function: Callable[..., Any]) -> Callable[[Context], tuple[Any, ...]]:
    """What a function of Jinja wants before the value, as its decorator says."""
    wanted = getattr(function, "jinja_pass_arg", None)
    return {
        None: lambda context: (),
        "context": lambda context: (context,),
        "eval_context": lambda context: (context.eval_ctx,),
        "environment": lambda context: (context.environment,),
    }[wanted and wanted.name]


@pass_context
def _copy(context: MeteredContext, value: Any) -> Any:
    context.budget.copy(value)
    return value


@pass_context
def _pay(context: MeteredContext, value: str, units: int) -> str:
    context.budget.charge(units)
    return value


@pass_context
def _items(context: MeteredContext, value: Any, units: int) -> list[Any]:
    return context.budget.take(value, units)


@pass_context
def _indent(context: MeteredContext, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    context.budget.weigh(text)
    if isinstance(width, str) or not 0 <= width <= _MAX_INDENT:
        raise SecurityError(f"indent: expected at most {_MAX_INDENT} spaces, got {width!r}")
    context.budget.copy(text, times=1 + width)
    return FILTERS["indent"](text, width, first, blank)


@pass_context
def _tojson(
    context: MeteredContext,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if len("".join(separators or ())) > _MAX_INDENT or not (indent is None or 0 <= indent <= _MAX_INDENT):
        raise SecurityError(f"tojson: expected at most {_MAX_INDENT} characters of indent or separators")
    for _ in range(1 + (indent or 0)):
        context.budget.weigh(value)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _namespace(*args: Any, **kwargs: Any) -> Namespace:
    values: Mapping[str, Any] = dict(*args, **kwargs)
    for name in values:
        check_attribute(name)
    return Namespace(values)


def _raise_exception(message: Any) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(date_format: str) -> str:
    if not _PLAIN_DATE_FORMAT.fullmatch(date_format):
        raise SecurityError(f"strftime_now: the format is too long or has widths: {date_format[:50]!r}")
    return datetime.now().strftime(date_format)
