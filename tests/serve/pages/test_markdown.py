"""What a model writes, as HTML: right, and harmless."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.serve.pages.markdown import as_html


def test_markdown():
    html = as_html("# A\n\n**b** and `c <d>`\n\n- one\n- two\n\n|x|y|\n|:-|-:|\n|1|2|\n\n~~gone~~")
    assert "<h1>A</h1>" in html
    assert "<strong>b</strong> and <code>c &lt;d&gt;</code>" in html
    assert "<li>one</li>\n<li>two</li>" in html
    assert '<td class="left">1</td>\n<td class="right">2</td>' in html
    assert "<s>gone</s>" in html


def test_code_is_highlighted_where_its_language_is_known():
    assert '<span class="k">def</span>' in as_html("```python\ndef f(): pass\n```")
    assert as_html("```nosuch\n<x>\n```") == '<pre><code class="language-nosuch">&lt;x&gt;\n</code></pre>\n'
    assert "<span" not in as_html("```python\n" + "x = 1\n" * 4000 + "```")  # too long


FORMULAS = [r"\(a < b^2\)", "$a < b^2$", r"so \[ a < b^2 \] it is", "\\[\na < b^2\n\\]", "$$a < b^2$$"]
FORMULAS += ["$$\na < b^2\n$$"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_mathml(text):
    html = as_html(text)
    assert "<mi>a</mi><mo>&lt;</mo><msup><mi>b</mi><mn>2</mn></msup>" in html
    display = "inline" if text.startswith(("\\(", "$a")) else "block"
    assert f'display="{display}"' in html
    assert ('<span class="formula">' in html) == (display == "block")


def test_prices_and_half_written_formulas_are_text():
    assert as_html("from $5 to $6") == "<p>from $5 to $6</p>\n"
    assert as_html(r"\( \frac{1}") == "<p>( \\frac{1}</p>\n"
    assert as_html(r"$\frac{$") == "<p><code>\\frac{</code></p>\n"
    assert "<code>" in as_html("$" + "{" * 500 + "}" * 500 + "$")


EVIL = [
    "<script>alert(1)</script>",
    '<img src="https://example.org/x.png" onerror="alert(1)">',
    "[a](javascript:alert(1)) [b](JAVASCRIPT:alert(1)) [c](data:text/html,x) [d](vbscript:x) [e](file:///etc/passwd)",
    "[a](//example.org) ![p](https://example.org/p.png)",
    "<javascript:alert(1)>",
    r"$\href{javascript:alert(1)}{x} \style{color:red}{y} \class{z}{w}$",
    '```python" onload="alert(1)\nx\n```',
    '```"><script>alert(1)</script>\nx\n```',
    '[a](https://example.org "x\\" onclick=\\"alert(1)")',
    '|a|\n|:-:" onclick="x|\n|1|',
]


@pytest.mark.parametrize("text", EVIL)
def test_nothing_is_obeyed_and_nothing_is_loaded(text):
    check_harmless(as_html(text))


def check_harmless(html: str) -> None:
    """Only known elements with known attributes, by the eyes of a browser: Python's own parser of HTML."""
    from html.parser import HTMLParser

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag not in ("script", "img", "style", "iframe", "object", "svg", "form", "input", "base", "meta"), (
                tag
            )
            for name, value in attrs:
                assert not name.startswith(("on", "style", "src", "xlink")), name
                if name == "href":
                    assert tag == "a"
                    assert re.match(r"(https?:|mailto:)", value), value
                    assert ("rel", "noopener noreferrer nofollow") in attrs

    Reader().feed(html)


def test_links_tell_nobody_where_they_come_from():
    assert as_html("[a](https://example.org/?q=1&r=2)") == (
        '<p><a href="https://example.org/?q=1&amp;r=2" rel="noopener noreferrer nofollow" target="_blank">a</a></p>\n'
    )


PIECES = ["<b>", "](javascript:x)", "[a", "$", "$$", "\\(", "\\[", "\\]", "\\frac{", "}", "`", "```\n", "|", "\n", "* "]
PIECES += ["\\href{javascript:x}{y}", "\x00", "\u202e", "&#x3c;", "\\text{<i>}", ">", "- ", "~~", "<!--", "\\left("]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=25).map("".join))
def test_any_text_can_be_shown(text):
    check_harmless(as_html(text))


def test_endless_texts_are_shown_as_they_are():
    assert as_html("[" * 2000) == f"<pre>{'[' * 2000}</pre>"
    assert as_html("a" * 100_001) == f"<pre>{'a' * 100_001}</pre>"
    assert as_html(">" * 3000)
