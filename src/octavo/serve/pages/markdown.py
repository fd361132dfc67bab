"""What a model writes as HTML that is safe to show: Markdown, highlighted code, formulas as MathML.

HTML in the text is shown, not obeyed. Pictures become links, since showing one would ask another host. Links are http,
https or mailto, and tell nobody where they come from.
"""

import re
from html import escape, unescape
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.texmath import texmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

_MOST_TEXT, _MOST_BRACKETS = 100_000, 1_000
"""A longer text, or one with more brackets (which take time by their square), is shown as it was written."""
_MOST_CODE, _MOST_LATEX, _MOST_DEPTH = 20_000, 2_000, 60
"""Characters of a piece of code that is highlighted; characters and nested brackets of a formula that is set."""
_SCHEMES = ("http", "https", "mailto")
_MATH_TAGS = {
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup",
    "munder", "mover", "munderover", "mmultiscripts", "mprescripts", "none", "mtable", "mtr", "mtd", "mstyle",
    "mpadded", "mphantom", "menclose",
}  # fmt: skip
_MATH_ATTRIBUTES = {
    "display", "displaystyle", "scriptlevel", "mathvariant", "stretchy", "fence", "separator", "lspace", "rspace",
    "minsize", "maxsize", "linethickness", "accent", "accentunder", "columnalign", "rowspacing", "columnspacing",
    "columnlines", "rowlines", "width", "height", "depth", "notation", "form", "movablelimits", "largeop", "symmetric",
}  # fmt: skip


def as_html(text: str) -> str:
    """The text as HTML. Never raises for what a text may hold, and takes at most a second or two."""
    try:
        if len(text) > _MOST_TEXT or text.count("[") > _MOST_BRACKETS:
            return f"<pre>{escape(text)}</pre>"
        return _MARKDOWN.render(text)
    except RecursionError:  # a thousand quotations in each other
        return f"<pre>{escape(text)}</pre>"


def _formula(latex: str, display: bool) -> str:
    """A formula as MathML; as it was written where it cannot be set."""
    try:
        if len(latex) > _MOST_LATEX or _depth(latex) > _MOST_DEPTH:
            raise ValueError("too long to set")
        element = convert_to_element(latex, display="block" if display else "inline")
        _clean(element)
        return ElementTree.tostring(element, encoding="unicode")
    except Exception:  # whatever a half-written formula makes of the converter
        return f"<code>{escape(latex)}</code>"


def _depth(latex: str) -> int:
    deepest = depth = 0
    for sign in re.findall(r"[{}]|\\left|\\right|\\begin|\\end", latex):
        depth += 1 if sign in ("{", "\\left", "\\begin") else -1
        deepest = max(deepest, depth)
    return deepest


def _clean(element: ElementTree.Element) -> None:
    """Keep of MathML what only sets a formula: LaTeX has links and styles as well."""
    for node in element.iter():
        if node.tag.rpartition("}")[2] not in _MATH_TAGS:
            node.tag = "mrow"
        for name in set(node.attrib) - _MATH_ATTRIBUTES - {"xmlns"}:
            del node.attrib[name]
        node.text = unescape(node.text) if node.text else node.text  # the converter writes signs as entities


def _code(content: str, name: str, attributes: Any) -> str:
    """Highlighted code; an empty text lets markdown-it write it plainly."""
    if not name or len(content) > _MOST_CODE:
        return ""
    try:
        lexer = get_lexer_by_name(name)
    except ClassNotFound:
        return ""
    return highlight(content, lexer, HtmlFormatter(nowrap=True))


class _Renderer(RendererHTML):
    """As markdown-it's, without anything that the pages' policy forbids."""

    def link_open(self, tokens: list[Token], index: int, options: Any, env: Any) -> str:
        tokens[index].attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
        return self.renderToken(tokens, index, options, env)

    def _cell(self, tokens: list[Token], index: int, options: Any, env: Any) -> str:
        """Alignment as a class: a style inside the page would be refused."""
        style = tokens[index].attrs.pop("style", "")
        if style:
            tokens[index].attrs["class"] = str(style).rpartition(":")[2]
        return self.renderToken(tokens, index, options, env)

    th_open = td_open = _cell


def _is_allowed(address: str) -> bool:
    try:
        return urlsplit(address).scheme.lower() in _SCHEMES
    except ValueError:
        return False


def _build() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"highlight": _code, "html": False, "maxNesting": 50}, renderer_cls=_Renderer)
    markdown.enable(["table", "strikethrough"]).disable("image")
    markdown.validateLink = _is_allowed  # type: ignore[method-assign]
    markdown.use(texmath_plugin, delimiters="brackets")
    markdown.inline.ruler.before("escape", "math_brackets", _brackets)
    markdown.use(
        dollarmath_plugin, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True,
        renderer=lambda latex, options: _formula(latex, options["display_mode"]),
    )  # fmt: skip
    markdown.add_render_rule("math_inline", _inline)
    markdown.add_render_rule("math_inline_double", _block)
    markdown.add_render_rule("math_block", _block)
    return markdown


def _brackets(state: StateInline, silent: bool) -> bool:
    """`\\[ ... \\]` in the midst of a line, which the plugin knows at the beginning of one only."""
    if not state.src.startswith("\\[", state.pos):
        return False
    end = state.src.find("\\]", state.pos + 2, state.posMax)
    if end < 0:
        return False
    if not silent:
        token = state.push("math_inline_double", "math", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _inline(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return _formula(tokens[index].content, False)


def _block(self: Any, tokens: list[Token], index: int, options: Any, env: Any) -> str:
    return f'<span class="formula">{_formula(tokens[index].content, True)}</span>'


_MARKDOWN = _build()
