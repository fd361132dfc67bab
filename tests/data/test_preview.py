"""What is shown is what is trained on: the mask is that of encode_document."""

import io
from collections import Counter

import pytest
from rich.console import Console

from octavo.data.examples import Example
from octavo.data.preview import Part, Preview, preview_examples, print_preview
from octavo.text.messages import Message
from octavo.text.template import encode_document
from octavo.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["no merges"], 265)


def ask(question: str, answer: str | None = None, reply: Message | None = None, where: str = "a.csv:2") -> Example:
    return Example((Message("user", question),), answer, reply, where=where)


WORKED = ask("wie groß?", "5", Message("assistant", "<answer>5</answer>", reasoning="2 + 3"))


def printed(preview: Preview, terminal: bool) -> str:
    stream = io.StringIO()
    colours = "standard" if terminal else None
    print_preview(preview, Console(file=stream, force_terminal=terminal, width=200, color_system=colours))
    return stream.getvalue()


def test_learned_parts_are_those_with_loss(tokenizer: Tokenizer):
    (rendered,) = preview_examples(tokenizer, [WORKED], 100).shown
    assert rendered.parts == (
        Part("<|user|>wie groß?<|assistant|>", False),
        Part("<think>2 + 3</think><answer>5</answer><|end|>", True),
    )
    document = WORKED.document()
    assert document is not None
    encoded = encode_document(tokenizer, document)
    assert rendered.tokens == len(encoded.ids)
    learned = [token for token, weight in zip(encoded.ids, encoded.weights, strict=True) if weight]
    assert tokenizer.decode(learned, show_control=True) == rendered.parts[1].text


def test_bare_answers_are_learned_only_if_asked_for(tokenizer: Tokenizer):
    prompt = Part("<|user|>1 + 1<|assistant|>", False)
    (checked,) = preview_examples(tokenizer, [ask("1 + 1", "2")], 100).shown
    assert (checked.parts, checked.answer) == ((prompt,), "2")
    (learned,) = preview_examples(tokenizer, [ask("1 + 1", "2")], 100, learn_answers=True).shown
    assert learned.parts == (prompt, Part("<answer>2</answer><|end|>", True))


def test_figures_worked_by_hand(tokenizer: Tokenizer):
    # <|user|> and <|assistant|> are two tokens more than the text's bytes.
    examples = [ask("x" * length, "1", where=f"a.csv:{length}") for length in (8, 1, 4, 2, 30)]
    preview = preview_examples(tokenizer, examples, 9, language_of=lambda text: "sw" if len(text) > 3 else "en")
    assert [rendered.where for rendered in preview.shown] == ["a.csv:1", "a.csv:4", "a.csv:30"]
    assert (preview.shortest_tokens, preview.median_tokens, preview.longest_tokens) == (3, 6, 32)
    assert preview.truncated == 2
    assert preview.languages == Counter(sw=3, en=2)
    lines = printed(preview, terminal=False).splitlines()
    assert lines[-2:] == [
        "5 examples of 3 to 32 tokens, median 6; 2 longer than the context of 9",
        "languages: sw 3, en 2",
    ]


def test_the_mask_is_visible_in_colour_and_without(tokenizer: Tokenizer):
    preview = preview_examples(tokenizer, [WORKED], 100)
    plain = printed(preview, terminal=False)
    assert "<|user|>wie groß?<|assistant|>⟦<think>2 + 3</think><answer>5</answer><|end|>⟧\n" in plain
    assert "--- checked against: 5" in plain
    coloured = printed(preview, terminal=True)
    assert "⟦" not in coloured
    assert "\x1b[1;32m<think>2 + 3</think>" in coloured


def test_long_texts_are_shown_in_part(tokenizer: Tokenizer):
    text = printed(preview_examples(tokenizer, [ask("x" * 5000, "1")], 100), terminal=False)
    assert "characters ...]" in text
    assert len(text) < 1500


def test_a_template_that_drops_the_reasoning_is_told(tokenizer: Tokenizer):
    source = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}{% generation %}{{ m.content.split('</think>')[-1] }}<|end|>{% endgeneration %}{% endif %}{% endfor %}"  # noqa: E501
    other = tokenizer.with_template(source)
    preview = preview_examples(other, [WORKED, ask("x", "1", Message("assistant", "1"))], 100)
    assert preview.lost_reasoning == 1
    assert "leaves out the reasoning of 1 examples" in printed(preview, terminal=False)
    assert preview_examples(tokenizer, [WORKED], 100).lost_reasoning == 0
