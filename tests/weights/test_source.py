"""What files say, in messages of one line."""

import pytest

from octavo.weights.source import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.norm.weight", "model.norm.weight"),
        ((3, 4), "(3, 4)"),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("x" * 201, "x" * 200 + "..."),
        ("\n" * 500, r"\n" * 100 + "..."),
        ("größe", "größe"),
    ],
)
def test_shown(text, expected):
    assert shown(text) == expected
