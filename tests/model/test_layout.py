"""Packed documents are as if each stood alone: hidden states and gradients, for any lengths."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octavo.model.attention import MLA
from octavo.model.config import ModelConfig
from octavo.model.layout import Layout
from octavo.model.transformer import Transformer

TOKENS = 16
MLA_MODEL = ModelConfig.parse(
    {
        "vocab_size": 50,
        "width": 16,
        "layers": 2,
        "ffn_width": 24,
        "init_std": 0.3,
        "attention": {"kind": "mla", "heads": 2, "kv_rank": 12, "nope_dim": 4, "rope_dim": 4, "v_dim": 6},
        "moe": {"experts": 6, "experts_per_token": 2, "expert_width": 8},
    }
)
GQA_MODEL = ModelConfig.parse(
    MLA_MODEL.dump() | {"moe": None, "attention": {"kind": "gqa", "heads": 4, "kv_heads": 2, "qk_norm": "head"}}
)
WINDOW_MODEL = ModelConfig.parse(
    MLA_MODEL.dump() | {"moe": None, "attention": {"kind": "gqa", "heads": 4, "kv_heads": 2, "sliding_window": 4}}
)


@st.composite
def rows_of_lengths(draw):
    """One to three rows of TOKENS tokens, each cut into documents at any places."""
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        cuts = sorted(draw(st.sets(st.integers(1, TOKENS - 1))))
        rows.append([end - start for start, end in zip([0, *cuts], [*cuts, TOKENS], strict=True)])
    return rows


def positions_of(rows):
    return torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])


@pytest.mark.parametrize("config", [MLA_MODEL, GQA_MODEL, WINDOW_MODEL], ids=["mla", "gqa", "window"])
def test_packed_equals_separate(config):
    torch.manual_seed(0)
    model = Transformer(config)

    @settings(max_examples=8, deadline=None)
    @given(rows_of_lengths())
    @example([[1] * TOKENS])
    @example([[TOKENS]])
    @example([[1, TOKENS - 1], [TOKENS - 1, 1]])
    @example([[2, 3, 11], [7, 1, 8], [5, 6, 5]])
    def check(rows):
        torch.manual_seed(1)
        ids_BT, seed_BTD = torch.randint(0, 50, (len(rows), TOKENS)), torch.randn(len(rows), TOKENS, 16)
        packed_BTD = model(ids_BT, positions_of(rows))
        packed = torch.autograd.grad((packed_BTD * seed_BTD).sum(), list(model.parameters()), allow_unused=True)
        loss = torch.zeros(())
        for row, lengths in enumerate(rows):
            for piece, ids, seed in zip(
                packed_BTD[row].split(lengths), ids_BT[row].split(lengths), seed_BTD[row].split(lengths), strict=True
            ):
                alone = model(ids[None], torch.arange(len(ids))[None])[0]
                torch.testing.assert_close(piece, alone, rtol=1e-4, atol=1e-4)
                loss = loss + (alone * seed).sum()
        separate = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        for (name, _), ours, theirs in zip(model.named_parameters(), packed, separate, strict=True):
            assert (ours is None) == (theirs is None) == (name == "head.weight"), name
            if ours is not None:
                scale = float(theirs.abs().max())
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * max(scale, 1.0))

    check()


@pytest.mark.parametrize("config", [MLA_MODEL, GQA_MODEL, WINDOW_MODEL], ids=["mla", "gqa", "window"])
def test_branches_equal_documents_that_repeat_what_is_shared(config):
    """One trunk of 5 tokens; branches that continue its first 5, 5, 3 and 1 tokens; another document and its branch."""
    torch.manual_seed(0)
    model = Transformer(config)
    positions_BT = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 5, 3, 4, 5, 1, 0, 1, 1, 2]])
    ids_T, seed_TD = torch.randint(0, 50, (16,)), torch.randn(16, 16)
    packed_TD = model(ids_T[None], positions_BT)[0]
    packed = torch.autograd.grad((packed_TD * seed_TD).sum(), list(model.parameters()), allow_unused=True)
    loss = torch.zeros(())
    # (shared tokens, own tokens) of each sequence.
    sequences = [(0, 0, 7), (5, 7, 8), (3, 8, 11), (1, 11, 12), (0, 12, 14), (1, 14, 16)]
    for shared, start, end in sequences:
        trunk = 12 if start >= 12 else 0
        ids = torch.cat((ids_T[trunk : trunk + shared], ids_T[start:end]))
        alone_TD = model(ids[None], torch.arange(len(ids))[None])[0, shared:]
        torch.testing.assert_close(packed_TD[start:end], alone_TD, rtol=1e-4, atol=1e-4)
        loss = loss + (alone_TD * seed_TD[start:end]).sum()
    separate = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    for ours, theirs in zip(packed, separate, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * max(float(theirs.abs().max()), 1.0))


@settings(max_examples=50, deadline=None)
@given(rows_of_lengths())
def test_every_token_has_one_place(rows):
    """Gathering and putting back is the identity, padding loses nothing, and documents are numbered in order."""
    layout = Layout.of(positions_of(rows))
    tokens = len(rows) * TOKENS
    numbers_R = torch.arange(tokens, dtype=torch.float64)
    assert torch.equal(layout.per_document(lambda x: x, numbers_R), numbers_R)
    lengths = [length for row in rows for length in row]
    assert layout.documents == len(lengths)
    assert layout.document_R.bincount().tolist() == lengths


@settings(max_examples=25, deadline=None)
@given(rows_of_lengths())
def test_a_document_stands_alone_in_its_row_of_a_bucket(rows):
    """What `attend` sees: each row one document from its first token on, in order, padded behind."""
    layout = Layout.of(positions_of(rows))
    positions_R = positions_of(rows).flatten()

    def attend(position_SL, document_SL):
        for positions, documents in zip(position_SL.tolist(), document_SL.tolist(), strict=True):
            length = int((layout.document_R == documents[0]).sum())
            assert positions[:length] == list(range(length))
            assert set(documents[:length]) == {documents[0]}
        longest = position_SL.shape[1]
        lengths = (layout.document_R[None] == document_SL[:, :1]).sum(1)
        assert longest == lengths.max()
        assert longest <= 1.5 * lengths.min(), "padding stays small"
        return position_SL

    assert torch.equal(layout.per_document(attend, positions_R, layout.document_R), positions_R)


def test_gradients_through_buckets():
    """Two buckets, one of them padded, in double precision against numeric differences."""
    layout = Layout.of(positions_of([[2, 3, 11]]))
    weight_R = torch.randn(TOKENS, dtype=torch.float64)

    def apply(x_R):
        return layout.per_document(lambda x_SL: x_SL.cumsum(1) * x_SL, x_R * weight_R)

    assert torch.autograd.gradcheck(apply, (torch.randn(TOKENS, dtype=torch.float64, requires_grad=True),))


def test_gradients_of_latent_attention():
    """The whole of MLA, over three packed documents, in double precision against numeric differences."""
    torch.manual_seed(0)
    attention = MLA(MLA_MODEL, MLA_MODEL.attention).double()
    positions = positions_of([[2, 1, 3]])[:, :6]
    angles = torch.randn(6, 2, dtype=torch.float64)
    layout = Layout.of(positions)

    def apply(x_RD, *weights):
        # gradcheck nudges the weights in place.
        return attention(x_RD, (angles.cos(), angles.sin()), layout)

    x_RD = torch.randn(6, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(apply, (x_RD, *attention.parameters()), fast_mode=True)


def test_rows_must_begin_with_a_document():
    with pytest.raises(AssertionError, match="each row must begin with a document"):
        Layout.of(torch.tensor([[0, 1, 2], [1, 2, 0]]))
