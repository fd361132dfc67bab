"""The mixture of experts against a slow loop over tokens, and its own bookkeeping.

Shapes: `R` tokens, `K` chosen experts, `E` experts, `D` width.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from octavo.model.config import MoEConfig
from octavo.model.experts import MoE, RoutedExperts, SwiGLU
from octavo.model.router import Routing

WIDTH, EXPERTS = 8, 5
CONFIG = MoEConfig(experts=EXPERTS, experts_per_token=2, expert_width=4)


def some_experts():
    torch.manual_seed(0)
    experts = RoutedExperts(WIDTH, CONFIG)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return experts


def swiglu(x_D, gate_up_DF, down_FD):
    gate_F, up_F = (x_D @ gate_up_DF).chunk(2)
    return (gate_F * gate_F.sigmoid() * up_F) @ down_FD


def slow(experts, x_RD, experts_RK, gates_RK):
    """One token and one expert at a time."""
    rows = []
    for r in range(len(x_RD)):
        total_D = torch.zeros(x_RD.shape[1])
        for k, e in enumerate(experts_RK[r].tolist()):
            total_D = total_D + gates_RK[r, k] * swiglu(x_RD[r], experts.gate_up_EDF[e], experts.down_EFD[e])
        rows.append(total_D)
    return torch.stack(rows)


def values_and_gradients(experts, apply, x_RD, gates_RK, seed_RD):
    x_RD, gates_RK = x_RD.clone().requires_grad_(), gates_RK.clone().requires_grad_()
    y_RD = apply(x_RD, gates_RK)
    gradients = torch.autograd.grad((y_RD * seed_RD).sum(), [x_RD, gates_RK, *experts.parameters()])
    return [y_RD.detach(), *gradients]


def compare(experts_RK):
    experts = some_experts()
    rows = len(experts_RK)
    x_RD, seed_RD, gates_RK = torch.randn(rows, WIDTH), torch.randn(rows, WIDTH), torch.rand(experts_RK.shape)

    def fast(x_RD, gates_RK):
        return experts(x_RD, Routing(experts_RK, gates_RK, torch.empty(0)))

    found = values_and_gradients(experts, fast, x_RD, gates_RK, seed_RD)
    expected = values_and_gradients(
        experts, lambda x, gates: slow(experts, x, experts_RK, gates), x_RD, gates_RK, seed_RD
    )
    names = ["output", "gradient of x", "gradient of gates", "gradient of gate and up", "gradient of down"]
    for name, ours, theirs in zip(names, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    return found


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.integers(0, EXPERTS - 1), min_size=2, max_size=2, unique=True), min_size=1, max_size=12))
def test_against_a_loop_over_tokens(choices):
    compare(torch.tensor(choices))


def test_experts_without_tokens():
    _, _, _, gate_up_EDF, down_EFD = compare(torch.tensor([[0, 3]] * 7))
    for gradient in (gate_up_EDF, down_EFD):
        assert [bool(gradient[e].any()) for e in range(EXPERTS)] == [True, False, False, True, False]


def test_all_tokens_on_one_expert():
    compare(torch.full((9, 1), 2))


def test_one_token():
    compare(torch.tensor([[4, 1]]))


def test_inference_gives_the_same():
    experts, experts_RK = some_experts(), torch.tensor([[0, 1], [4, 0], [2, 1]])
    x_RD, gates_RK = torch.randn(3, WIDTH), torch.rand(3, 2)
    with torch.inference_mode():
        found = experts(x_RD, Routing(experts_RK, gates_RK, torch.empty(0)))
        torch.testing.assert_close(found, slow(experts, x_RD, experts_RK, gates_RK), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "skewed"), [(1, False), (40, False), (400, False), (40, True), (14_000, True)])
def test_without_gradients_experts_take_another_way_to_the_same(rows, skewed, monkeypatch):
    experts = some_experts()
    torch.manual_seed(rows)
    experts_RK = torch.tensor([[3, 1]]).repeat(rows, 1) if skewed else torch.rand(rows, EXPERTS).topk(2, dim=1).indices
    routing = Routing(experts_RK, torch.rand(rows, 2), torch.empty(0))
    x_RD = torch.randn(rows, WIDTH)
    padded, original = [], RoutedExperts._compute_padded
    monkeypatch.setattr(
        RoutedExperts, "_compute_padded", lambda self, *args: padded.append(rows) or original(self, *args)
    )
    with torch.no_grad():
        found = experts(x_RD, routing)
        some = torch.randperm(rows)[:400]
        expected = slow(experts, x_RD[some], experts_RK[some], routing.gates_RK[some])
    torch.testing.assert_close(found[some], expected, rtol=1e-4, atol=1e-5)
    # Only where padding would cost more than calls do is each expert computed by itself.
    assert bool(padded) == (rows < 14_000)


def test_a_token_does_not_see_its_neighbours():
    """The order of tokens and who else is in the batch changes nothing."""
    moe = some_moe().eval()
    x_RD = torch.randn(20, WIDTH)
    with torch.no_grad():
        together, order = moe(x_RD), torch.randperm(20)
        torch.testing.assert_close(moe(x_RD[order]), together[order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moe(x_RD[3:4]), together[3:4], rtol=1e-4, atol=1e-5)


def some_moe(**values):
    torch.manual_seed(0)
    moe = MoE(WIDTH, MoEConfig.parse(CONFIG.dump() | values))
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return moe


def test_routed_plus_shared():
    moe = some_moe(shared_experts=2)
    assert moe.shared.gate.weight.shape == (2 * 4, WIDTH)
    x_RD = torch.randn(6, WIDTH)
    routing = moe.router(x_RD)
    shared = moe.shared
    expected_RD = slow(moe.experts, x_RD, routing.experts_RK, routing.gates_RK) + shared.down(
        F.silu(x_RD @ shared.gate.weight.T) * (x_RD @ shared.up.weight.T)
    )
    torch.testing.assert_close(moe(x_RD), expected_RD, rtol=1e-4, atol=1e-5)


def test_without_shared_experts():
    moe = some_moe(shared_experts=0)
    x_RD = torch.randn(6, WIDTH)
    routing = moe.router(x_RD)
    torch.testing.assert_close(
        moe(x_RD), slow(moe.experts, x_RD, routing.experts_RK, routing.gates_RK), rtol=1e-4, atol=1e-5
    )


def test_gradients_reach_the_router():
    moe = some_moe().train()
    x_RD = torch.randn(16, WIDTH, requires_grad=True)
    moe(x_RD).square().sum().backward()
    assert moe.router.weight.grad.abs().max() > 1e-3
    assert x_RD.grad.abs().min() > 0


def test_swiglu_by_hand():
    """gate 2, up 3, down 5: 5 silu(2 x) 3 x at x = 0.5 is 7.5 / (1 + e^-1)."""
    layer = SwiGLU(1, 1)
    with torch.no_grad():
        for linear, value in ((layer.gate, 2.0), (layer.up, 3.0), (layer.down, 5.0)):
            linear.weight.fill_(value)
        found = layer(torch.tensor([0.5]))
    assert found.item() == pytest.approx(7.5 / (1 + 2.718281828**-1))
