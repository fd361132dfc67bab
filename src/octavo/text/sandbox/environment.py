"""The Jinja environment: which operators, methods and functions exist, and what they pay."""

from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from octavo.text.sandbox.budget import Budget, MeteredContext
from octavo.text.sandbox.functions import filters, functions, tests, weigh
from octavo.text.sandbox.syntax import GenerationTag

_MAX_INTEGER_BITS = 4096
_MAX_EXPONENT = 64
_STRING_METHODS = (
    *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower"),
    *("isnumeric", "isspace", "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix"),
    *("replace", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
)
_METHODS: tuple[tuple[type | tuple[type, ...], tuple[str, ...]], ...] = (
    (str, _STRING_METHODS),
    (dict, ("get", "items", "keys", "values")),
    ((list, tuple), ("count", "index")),
    ((int, float, range), ()),
)


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Renders in a `MeteredContext` only."""

    context_class = MeteredContext
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", GenerationTag],
            finalize=weigh,
            optimized=False,  # would compute constant expressions before anybody counts
        )
        self.filters = filters()
        self.tests = tests()
        del self.globals["lipsum"]
        self.globals |= functions()

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No wrapper: `format`, whose widths have no bound, is no safe attribute."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        assert isinstance(context, MeteredContext)
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on strings is not for chat templates: use ~")
        if operator == "**" and not abs(right) <= _MAX_EXPONENT:
            raise SecurityError(f"expected exponents up to {_MAX_EXPONENT}, got {right}")
        times = 1
        if operator == "*":
            times = max([0, *(factor for factor in (left, right) if isinstance(factor, int))])
        context.budget.copy(left, times)
        context.budget.copy(right, times)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > _MAX_INTEGER_BITS:
            raise SecurityError(f"expected numbers of up to {_MAX_INTEGER_BITS} bits")
        return result

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert isinstance(context, MeteredContext)
        if isinstance(obj, Macro):  # its body pays
            return super().call(context, obj, *args, **kwargs)
        for value in (*args, *kwargs.values()):
            context.budget.weigh(value)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            args = _pay_for_string_method(context.budget, obj.__name__, owner, args, kwargs)
        else:
            context.budget.weigh(owner)
        result = super().call(context, obj, *args, **kwargs)
        context.budget.copy(result)
        return result


def _pay_for_string_method(
    budget: Budget, name: str, text: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Charge for a method of `text`; the arguments to call it with."""
    budget.copy(text)
    given = (*args, *kwargs.values())
    for wanted in given:
        budget.search(text, wanted)
    if name == "join" and args:
        items = budget.take(args[0])
        budget.weigh(items)
        budget.copy(text, times=len(items))
        return (items, *args[1:])
    if name == "replace" and len(args) > 1:
        budget.replace(text, args[0], args[1])
    elif name in ("split", "rsplit", "splitlines"):
        separators = [value for value in given if isinstance(value, str) and value]
        budget.charge(text.count(separators[0]) if separators else len(text) // 8)
    return args
