"""Rows for new tokens: means of their pieces, beside old ones that stay as they are."""

import pytest
import torch

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.model.vocabulary import add_tokens

PIECES = [(3, 5), (3, 5, 7, 7)]
SHAPE = {"vocab_size": 12, "width": 8, "layers": 1, "ffn_width": 8, "mtp_layers": 1}
SHAPE |= {"attention": {"kind": "gqa", "heads": 2, "kv_heads": 1}, "max_positions": 32}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig.parse(SHAPE | {"tie_embeddings": request.param}))


def logits(model: Transformer, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(torch.tensor([ids]), torch.arange(len(ids))[None]))[0]


@pytest.mark.parametrize("first", [12, 10], ids=["behind all rows", "in rows beyond the tokenizer's"])
def test_new_rows_are_means_and_old_ones_unchanged(model, first):
    tables = {name: table.clone() for name, table in model.state_dict().items() if len(table) == 12}
    assert len(tables) == (1 if model.head is None else 2)
    before = logits(model, [1, 2, 3])
    add_tokens(model, PIECES, first)
    assert model.config.vocab_size == max(12, first + 2) == model.embed.num_embeddings
    for name, old in tables.items():
        new = model.state_dict()[name]
        assert torch.equal(new[:first], old[:first])
        torch.testing.assert_close(new[first], (old[3] + old[5]) / 2)
        torch.testing.assert_close(new[first + 1], (old[3] + old[5] + 2 * old[7]) / 4)
    after = logits(model, [1, 2, 3])
    assert torch.equal(after[:, :first], before[:, :first])
    torch.testing.assert_close(after[:, first], (before[:, 3] + before[:, 5]) / 2)


def test_it_is_trained_further_as_any_model(model):
    add_tokens(model, PIECES, 12)
    again = Transformer(model.config)
    again.load_state_dict(model.state_dict())
    assert {name: p.shape for name, p in again.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    hidden = model(torch.tensor([[12, 13]]), torch.arange(2)[None])
    model.logits(hidden).sum().backward()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.embed.weight.grad is not None
    assert model.embed.weight.grad[12:].abs().sum() > 0
