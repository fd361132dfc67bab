"""Packing: rows worked by hand; every prediction exactly once and inside its document, as properties."""

from collections import Counter, deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.data.packing import Piece, chop, collate, fill_rows, pack
from octavo.text.template import TokenDocument


def numbered(lengths: list[int]) -> list[TokenDocument]:
    """Documents without a token in common; each token has a weight of its own."""
    documents, start = [], 1
    for length in lengths:
        ids = list(range(start, start + length))
        documents.append(TokenDocument(ids, [id + 0.5 for id in ids]))
        start += length
    return documents


def test_a_batch_worked_by_hand():
    documents = [TokenDocument([11, 12, 13, 14], [0, 0, 1, 1]), TokenDocument([21, 22, 23], [1, 0.5, 2])]
    batch = collate([[Piece(documents[0], 0, 3), Piece(documents[1], 0, 2)], [Piece(documents[1], 0, 2)]], 6)
    assert batch.inputs_BT.tolist() == [[11, 12, 13, 21, 22, 0], [21, 22, 0, 0, 0, 0]]
    assert batch.targets_BT.tolist() == [[12, 13, 14, 22, 23, 0], [22, 23, 0, 0, 0, 0]]
    assert batch.weights_BT.tolist() == [[0, 1, 1, 0.5, 2, 0], [0.5, 2, 0, 0, 0, 0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 2, 3]]
    assert (batch.inputs_BT.dtype, batch.positions_BT.dtype) == (torch.int64, torch.int64)
    assert (batch.weights_BT.dtype, batch.tokens, batch.weight) == (torch.float32, 12, 7.0)


def test_a_long_document_is_chopped_and_begins_again():
    document = numbered([8])[0]
    pieces = list(chop(document, 3))
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 3), (3, 6), (6, 7)]
    batch = collate([[piece] for piece in pieces], 3)
    assert batch.inputs_BT.tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert batch.targets_BT.tolist() == [[2, 3, 4], [5, 6, 7], [8, 0, 0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2], [0, 1, 2], [0, 0, 1]]


@pytest.mark.parametrize("length", [0, 1])
def test_a_document_without_a_prediction_gives_no_piece(length: int):
    assert list(chop(numbered([length])[0], 4)) == []
    assert list(pack(numbered([length]), 4)) == []


def test_best_fit_worked_by_hand():
    def fill(lengths: list[int], rows: int) -> tuple[list[list[int]], list[int]]:
        waiting: deque[str] = deque()
        filled = fill_rows(waiting, iter("x" * length for length in lengths), rows, 10)
        return [[len(piece) for piece in row] for row in filled], [len(piece) for piece in waiting]

    assert fill([6, 7, 3, 4], rows=3) == ([[6, 4], [7, 3]], []), "the fullest row that still holds it"
    assert fill([6, 7, 8, 4], rows=2) == ([[6, 4], [7]], [8]), "what fits nowhere waits"
    assert fill([10, 10, 5], rows=2) == ([[10], [10]], []), "full rows end it: the 5 has not been read"
    assert fill([], rows=2) == ([], [])


def test_what_waits_comes_first_and_is_never_more_than_the_limit():
    waiting: deque[str] = deque()
    stream = iter(["a" * 6] * 200 + ["b"])
    rows = []
    while filled := fill_rows(waiting, stream, 1, 10):
        assert len(waiting) <= 32
        rows += filled
    assert len(rows) == 200
    assert "b" in {piece for row in rows for piece in row}


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 12))
def test_every_prediction_occurs_once_and_none_crosses_documents(lengths: list[int], tokens_per_row: int):
    documents = numbered(lengths)
    rows = list(pack(documents, tokens_per_row))
    assert all(rows)
    assert all(sum(map(len, row)) <= tokens_per_row for row in rows)
    if not rows:
        assert max(lengths, default=0) < 2
        return
    batch = collate(rows, tokens_per_row)
    columns = [tensor.flatten().tolist() for tensor in (batch.inputs_BT, batch.targets_BT, batch.weights_BT)]
    packed = zip(*columns, strict=True)
    triples = Counter(triple for triple in packed if triple[2] > 0)
    expected = [
        (document.ids[i], document.ids[i + 1], document.weights[i + 1])
        for document in documents
        for i in range(len(document.ids) - 1)
    ]
    assert triples == Counter(expected)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 12))
def test_positions_count_from_0_wherever_a_document_begins(lengths: list[int], tokens_per_row: int):
    rows = list(pack(numbered(lengths), tokens_per_row))
    if not rows:
        return
    batch = collate(rows, tokens_per_row)
    for inputs, positions, row in zip(batch.inputs_BT.tolist(), batch.positions_BT.tolist(), rows, strict=True):
        assert positions[0] == 0
        for t in range(1, tokens_per_row):
            goes_on = inputs[t] == inputs[t - 1] + 1 if inputs[t] else inputs[t - 1] == 0
            assert positions[t] in (0, positions[t - 1] + 1)
            assert positions[t] == 0 or goes_on, "a position goes on only within a document, or within padding"
        starts = len(row) + (sum(map(len, row)) < tokens_per_row)
        assert positions.count(0) == starts


def test_short_documents_fill_rows_well():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(40, 160, (2000,), generator=generator).tolist()
    rows = list(pack(numbered(lengths), 1024))
    filled = sum(length - 1 for length in lengths) / (len(rows) * 1024)
    assert filled > 0.98
