"""Makes the syntax tree of a template pay for what it does, and refuses what no chat template may use."""

from collections.abc import Mapping
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

OPENING, CLOSING = "generation_opening", "generation_closing"
"""Variables that `{% generation %}` puts before and behind its block."""
ITEMS, PAY, WEIGH, COPY = "(items)", "(pay)", "(weigh)", "(copy)"
"""Filters that are put in; no template can write their names."""

_NODES_A_UNIT = 16  # steps of compiled code that cost as much as one that is charged
_MAX_NODES = 10_000  # known templates have 2,000
_MAX_BLOCKS_DEEP = 20  # loops and macros inside each other, as Python allows
_REFUSED: Mapping[type[nodes.Node], str] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "from",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.ScopedEvalContextModifier: "autoescape",
}


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`, the tag of `transformers` for what the model writes itself."""

    tags = {"generation"}  # noqa: RUF012 (the type that jinja2 declares)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opening, closing = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in (OPENING, CLOSING))
        return [opening, *body, closing]


def units(*tree: nodes.Node) -> int:
    """What one pass over this part of a tree costs. Raises SecurityError if it is too large."""
    size = sum(1 + sum(1 for _ in node.find_all(nodes.Node)) for node in tree)
    if size > _MAX_NODES:
        raise SecurityError(f"it is too large: expected at most {_MAX_NODES} nodes of syntax")
    return 1 + size // _NODES_A_UNIT


class Metering(NodeTransformer):
    """Rewrites a tree. Raises SecurityError."""

    def __init__(self) -> None:
        self._depth = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if refused := _REFUSED.get(type(node)):
            raise SecurityError(f"it may not use {{% {refused} %}}")
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise SecurityError("it may not use recursive loops")
        each = units(*node.body, *([node.test] if node.test else []))
        self._visit_inside(node)
        node.iter = _filter(node.iter, ITEMS, nodes.Const(each))
        return node

    def visit_Macro(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        paid = _filter(nodes.Const(""), PAY, nodes.Const(units(*node.body)))
        self._visit_inside(node)
        node.body.insert(0, nodes.Output([paid]))
        return node

    visit_CallBlock = visit_Macro

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _weighed(node.expr)
        for operand in node.ops:
            operand.expr = _weighed(operand.expr)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [_weighed(part) for part in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filter(node.node, COPY)
        else:
            node.arg = _weighed(node.arg)  # keys are hashed
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        self.generic_visit(node)
        node.key = _weighed(node.key)
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        return nodes.Const(node.data)  # template data would bypass `finalize`, constants do not

    def visit_NSRef(self, node: nodes.NSRef) -> nodes.Node:
        check_attribute(node.attr)
        return node

    def _visit_inside(self, node: nodes.Node) -> None:
        self._depth += 1
        if self._depth > _MAX_BLOCKS_DEEP:
            raise SecurityError(f"it nests loops and macros deeper than {_MAX_BLOCKS_DEEP}")
        self.generic_visit(node)
        self._depth -= 1


def check_attribute(name: Any) -> None:
    """Refuse attributes of namespaces that Python itself would look at."""
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not have the attribute {name!r}")


def _filter(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(node, name, list(args), [], None, None)  # node, name, args, kwargs, *args, **kwargs


def _weighed(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(node, WEIGH)
