"""What the whole model promises beyond its parts: initial weights, tied heads, the balance loss, empty models."""

import math

import pytest
import torch

from octavo.model.transformer import Transformer


def test_initial_weights(sparse):
    """Normal with init_std; into the residual stream divided by sqrt(2 layers); norms 1, biases 0."""
    torch.manual_seed(0)
    config = sparse(width=128, vocab_size=500, ffn_width=200, layers=2, init_std=0.05, attention={"q_rank": 64})
    model = Transformer(config)
    into_residual = {"attention.o.weight", "ffn.down.weight", "ffn.shared.down.weight", "ffn.experts.down_EFD"}
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
            continue
        leaf = name.split(".", 2)[-1]
        expected = 0.05 / math.sqrt(4) if leaf in into_residual else 0.05
        values = parameter.numel()
        # Four standard errors of a sample's mean and deviation.
        assert abs(parameter.mean()) < 4 * expected / math.sqrt(values), name
        assert abs(parameter.std() / expected - 1) < 4 / math.sqrt(2 * values), name
    assert into_residual <= {name.split(".", 2)[-1] for name, _ in model.named_parameters()}


def test_initial_biases_are_zero(dense):
    model = Transformer(dense(attention={"qkv_bias": True}))
    biases = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 9
    assert not any(bias.any() for bias in biases)


def test_the_same_seed_gives_the_same_model(sparse, random_model):
    first, second, other = (random_model(sparse(), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


def test_logits_are_the_head_applied(sparse, random_model):
    model = random_model(sparse())
    hidden = torch.randn(2, 3, 16)
    torch.testing.assert_close(model.logits(hidden), torch.einsum("btd,vd->btv", hidden, model.head.weight))
    assert model.head_weight_VD is model.head.weight


def test_tied_head(sparse, random_model):
    model = random_model(sparse(tie_embeddings=True))
    assert model.head_weight_VD is model.embed.weight
    assert not any("head" in name for name in model.state_dict())


def test_empty_models_compute_once_filled(sparse, random_model):
    """Everything that is not read from a file is there: frequencies, counters."""
    yarn = {"kind": "yarn", "factor": 4.0, "original_max_positions": 64}
    model = random_model(sparse(rope_scaling=yarn, max_positions=256, mtp_layers=1))
    empty = Transformer.empty(model.config)
    empty.load_state_dict(model.state_dict())
    ids, positions = torch.randint(0, 50, (1, 9)), torch.arange(9)[None]
    with torch.no_grad():
        hidden = model(ids, positions)
        assert torch.equal(empty.eval()(ids, positions), hidden)
        assert torch.equal(empty.mtp_hidden(hidden, ids, positions)[0], model.mtp_hidden(hidden, ids, positions)[0])
    assert all(torch.equal(router.load_E, torch.zeros(8)) for router in empty.routers())


def test_balance_loss(sparse, random_model):
    """sum over layers and documents of T sum_i f_i P_i (DeepSeek-V3, eq. 17-20), from the routers' own decisions."""
    model = random_model(sparse()).train()
    lengths = (5, 1, 8)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    model(torch.randint(0, 50, (1, 14)), positions)
    expected = 0.0
    for router in model.routers():
        start = 0
        for length in lengths:
            span = slice(start, start + length)
            scores, chosen = router.routing.scores_RE[span].detach(), router.routing.experts_RK[span]
            for expert in range(8):
                f = 8 / (3 * length) * int((chosen == expert).sum())
                p = float((scores[:, expert] / scores.sum(1)).mean())
                expected += length * f * p
            start += length
    loss = model.balance_loss()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert all(router.weight.grad.any() for router in model.routers())


def test_no_balance_loss_without_experts_or_training(sparse, dense, random_model):
    ids, positions = torch.randint(0, 50, (1, 9)), torch.arange(9)[None]
    model = random_model(dense()).train()
    model(ids, positions)
    assert model.balance_loss() is None
    model = random_model(sparse()).train()
    model(ids, positions)
    with torch.no_grad():
        model(ids, positions)
    assert model.balance_loss() is None


def test_training_changes_nothing_in_the_forward_pass(sparse, random_model):
    model = random_model(sparse())
    ids, positions = torch.randint(0, 50, (2, 9)), torch.arange(9).expand(2, 9)
    with torch.no_grad():
        evaluated = model(ids, positions)
    torch.testing.assert_close(model.train()(ids, positions), evaluated, rtol=1e-5, atol=1e-5)
