from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from octavo.text.splitter import ReplySplitter

REPLY = "so<think>2 < 3, <b></think> <answer>3</answer>\n"
PARTS = [("outside", "so"), ("reasoning", "2 < 3, <b>"), ("outside", " "), ("answer", "3"), ("outside", "\n")]


def joined(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbouring pieces of the same part made one."""
    result: list[tuple[str, str]] = []
    for part, text in pieces:
        if result and result[-1][0] == part:
            result[-1] = (part, result[-1][1] + text)
        else:
            result.append((part, text))
    return result


@given(st.sets(st.integers(1, len(REPLY) - 1)))
def test_a_reply_is_split_alike_however_it_arrives(cuts):
    splitter, pieces, ends = ReplySplitter(), [], [0, *sorted(cuts), len(REPLY)]
    for start, end in pairwise(ends):
        pieces += splitter.feed(REPLY[start:end])
    pieces += splitter.flush()
    assert joined(pieces) == PARTS


def test_nothing_is_held_back_that_cannot_become_a_tag():
    splitter = ReplySplitter()
    assert list(splitter.feed("1 <2")) == [("outside", "1 <2")]
    assert list(splitter.feed("<thi")) == []
    assert list(splitter.feed("s")) == [("outside", "<this")]


def test_answer_tags_are_text_where_they_mean_nothing():
    splitter = ReplySplitter(reasoning_open=True, answer_tags=False)
    pieces = [*splitter.feed("so</think><ans"), *splitter.feed("wer>3</answer>"), *splitter.flush()]
    assert joined(pieces) == [("reasoning", "so"), ("outside", "<answer>3</answer>")]
