"""The kernels for training against torch: values and gradients of whole models and of each function."""

import pytest
import torch
from torch.nn import functional as F

from octavo.model import fused
from octavo.model.layout import Layout
from octavo.model.norm import RMSNorm
from octavo.model.rope import rotate_halves
from octavo.native import training

pytestmark = pytest.mark.skipif(not training.serves(torch.zeros(1)), reason="no kernels here")

# Around the tiles of 64 queries; (3, 2): two branches that continue the first 3 tokens of the document before them.
DOCUMENTS = [(0, 1), (0, 70), (3, 2), (70, 65), (0, 64), (0, 3), (2, 129)]


def positions_of(documents: list[tuple[int, int]]) -> torch.Tensor:
    return torch.cat([torch.arange(borrowed, borrowed + own) for borrowed, own in documents])[None]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        ("sparse", {}),
        ("sparse", {"q_rank": 8, "v_dim": 16, "nope_dim": 18}),
        ("dense", {"qkv_bias": True}),
        ("dense", {"kv_heads": 1, "qk_norm": "head"}),
        ("dense", {"kv_heads": 4, "qk_norm": "projection", "sliding_window": 5}),
        ("dense", {"sliding_window": 66}),
    ],
)
def test_a_model_has_the_hidden_states_and_gradients_of_torch(
    kind, attention, threads, request, random_model, monkeypatch
):
    torch.set_num_threads(threads)
    model = random_model(request.getfixturevalue(kind)(attention, width=24, max_positions=512)).train()
    positions_BT = positions_of(DOCUMENTS)
    inputs_BT, upstream = torch.randint(50, positions_BT.shape), torch.randn(*positions_BT.shape, 24)

    def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad()
        hidden = model(inputs_BT, positions_BT)
        hidden.backward(upstream)
        return hidden.detach(), {name: x.grad for name, x in model.named_parameters() if x.grad is not None}

    hidden, gradients = run()
    monkeypatch.setenv(training.SWITCH, "0")
    monkeypatch.setattr(fused, "native", None)
    expected, expected_gradients = run()
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        scale = expected_gradients[name].abs().max()
        torch.testing.assert_close(gradient / scale, expected_gradients[name] / scale, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("width", [1, 15, 16, 40])
def test_norm(width: int):
    norm = RMSNorm(width, 1e-5)
    norm.weight.data.normal_()
    x, upstream = torch.randn(3, 7, width, requires_grad=True), torch.randn(3, 7, width)
    expected = torch.autograd.grad(
        F.rms_norm(x.double(), (width,), norm.weight.double(), 1e-5), (x, norm.weight), upstream.double()
    )
    torch.testing.assert_close(norm(x), F.rms_norm(x, (width,), norm.weight, 1e-5))
    torch.testing.assert_close(torch.autograd.grad(norm(x), (x, norm.weight), upstream), expected)


@pytest.mark.parametrize("count", [1, 16, 4095, 4097, 9000])
def test_swiglu_of_any_size_and_of_large_values(count: int):
    gate, up, upstream = (torch.randn(count) for _ in range(3))
    gate[0] = -200.0
    gate[-1] = 200.0
    gate.requires_grad_(), up.requires_grad_()
    expected = F.silu(gate.double()) * up.double()
    torch.testing.assert_close(fused.swiglu(gate, up), expected.float())
    torch.testing.assert_close(
        torch.autograd.grad(fused.swiglu(gate, up), (gate, up), upstream),
        torch.autograd.grad(expected, (gate, up), upstream.double()),
    )


def test_experts_without_any_token_get_zero_gradients(sparse, random_model):
    model = random_model(sparse(moe={"experts": 64, "experts_per_token": 2, "expert_width": 8})).train()
    model(torch.randint(50, (1, 4)), torch.arange(4)[None]).sum().backward()
    experts = model.layers[1].ffn.experts
    used = {int(expert) for expert in model.layers[1].ffn.router.routing.experts_RK.flatten()}
    for gradient_EXX in (experts.gate_up_EDF.grad, experts.down_EFD.grad):
        assert {int(expert) for expert in gradient_EXX.flatten(1).any(1).nonzero()} == used


def test_the_same_again_bit_for_bit(sparse, random_model):
    torch.set_num_threads(2)
    model = random_model(sparse(max_positions=512)).train()
    positions_BT = positions_of(DOCUMENTS)
    inputs_BT = torch.randint(50, positions_BT.shape)
    runs = []
    for _ in range(3):
        model.zero_grad()
        model(inputs_BT, positions_BT).square().sum().backward()
        runs.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for again in runs[1:]:
        assert all(map(torch.equal, again, runs[0]))


def test_frozen_weights_get_no_gradient(sparse, random_model):
    model = random_model(sparse()).train().requires_grad_(False)
    model.layers[0].attention.o.weight.requires_grad_(True)
    model(torch.randint(50, (1, 6)), torch.arange(6)[None]).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == [
        "layers.0.attention.o.weight"
    ]


def test_attention_is_that_of_each_document_alone():
    layout, size = Layout.of(positions_of([(0, 5), (0, 9)])), 6
    q, k, v = torch.randn(14, 4, size), torch.randn(14, 2, size), torch.randn(14, 2, size)
    angles = torch.randn(14, size // 2)
    out = fused.attention(q, k, v, (angles.cos(), angles.sin()), layout, scale=0.3, halves=True)
    for rows in (slice(0, 5), slice(5, 14)):
        q_NLH, k_NLH = (rotate_halves(x[rows], angles[rows].cos(), angles[rows].sin()).transpose(0, 1) for x in (q, k))
        expected = F.scaled_dot_product_attention(
            q_NLH, k_NLH, v[rows].transpose(0, 1), is_causal=True, scale=0.3, enable_gqa=True
        )
        torch.testing.assert_close(out[rows], expected.transpose(0, 1))
