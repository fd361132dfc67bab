"""Answers that were kept are rows that `octavo adapt` reads."""

import json

import pytest

from octavo.data.examples import Example
from octavo.data.shapes import detect_shape
from octavo.data.tables import Row
from octavo.errors import DataError
from octavo.serve.pages.rows import KeptRows

ASKED = {"role": "user", "content": "Hur mycket är 2 + 3?"}
REPLY = {"role": "assistant", "content": "5", "reasoning_content": "2 + 3 = 5"}


def test_rows_are_read_as_examples(tmp_path):
    rows = KeptRows(tmp_path / "kept.jsonl")
    rows.add(
        [{"role": "system", "content": "Svara kort."}, ASKED, REPLY, ASKED, {"role": "assistant", "content": "5!"}]
    )
    rows.add([ASKED, REPLY | {"more": 1}])
    first, second = map(json.loads, (tmp_path / "kept.jsonl").read_text().splitlines())
    assert second == {"messages": [ASKED, REPLY]}
    example = detect_shape({"messages": "list"}, {}).read(Row("kept.jsonl:1", first))
    assert isinstance(example, Example)
    assert [message.role for message in example.messages] == ["system", "user", "assistant", "user"]
    assert example.reply.content == "5!"


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [ASKED],
        [REPLY],
        [ASKED, ASKED, REPLY],
        [ASKED, REPLY, {"role": "system", "content": "x"}],
        [ASKED, {"role": "assistant", "content": " "}],
        [ASKED, {"role": "assistant", "content": 5}],
        [ASKED, {"role": "root", "content": "x"}],
    ],
)
def test_what_is_no_conversation_is_not_kept(tmp_path, turns):
    with pytest.raises(DataError, match="the conversation"):
        KeptRows(tmp_path / "kept.jsonl").add(turns)
    assert not (tmp_path / "kept.jsonl").exists()
