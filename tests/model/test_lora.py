"""Adapters: nothing at first, the low-rank delta afterwards, the same in training, decoding, folded and merged."""

import copy
import gc

import pytest
import torch
from torch import nn

from octavo.errors import ConfigError
from octavo.model.lora import LoraConfig, adapters, add_lora, drop_lora, folded, has_lora, merge_lora
from octavo.model.lora_layers import LoraExperts, LoraLinear

EVERYTHING = ("attention", "ffn", "experts", "router")
IDS, POSITIONS = torch.arange(18).view(2, 9) * 7 % 50, torch.arange(9).expand(2, 9)


def logits(model):
    return model.logits(model(IDS, POSITIONS))


def trained(model, **values):
    """Adapters as if trained: B is no longer 0."""
    add_lora(model, LoraConfig.parse({"rank": 4, "alpha": 6.0, "targets": EVERYTHING} | values))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2)
    return model.eval()


@pytest.fixture(params=["mla and experts", "mla with query rank", "gqa"])
def plain(request, sparse, dense, random_model):
    config = {
        "mla and experts": lambda: sparse(mtp_layers=1),
        "mla with query rank": lambda: sparse(attention={"q_rank": 8}, moe={"shared_experts": 0}),
        "gqa": lambda: dense(attention={"qkv_bias": True}),
    }[request.param]
    return random_model(config())


def test_fresh_adapters_change_nothing_and_dropping_them_gives_the_model_back(plain):
    names, expected = plain.state_dict().keys(), logits(plain)
    add_lora(plain, LoraConfig(rank=4, targets=EVERYTHING))
    assert has_lora(plain)
    # Not bit for bit: experts with adapters do without the kernels of those without.
    torch.testing.assert_close(logits(plain), expected)
    drop_lora(trained_copy := copy.deepcopy(plain))
    assert trained_copy.state_dict().keys() == names
    assert not has_lora(trained_copy)
    assert torch.equal(logits(trained_copy), expected)
    assert all(parameter.requires_grad for parameter in trained_copy.parameters())


def test_a_linear_layer_worked_by_hand():
    layer = LoraLinear(nn.Linear(2, 3), rank=1, scale=2.0)
    with torch.no_grad():
        layer.base.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        layer.base.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
        layer.lora_A.copy_(torch.tensor([[1.0, -1.0]]))
        layer.lora_B.copy_(torch.tensor([[1.0], [0.0], [-2.0]]))
    # x A^T = 1, times B and scale: (2, 0, -4).
    torch.testing.assert_close(layer(torch.tensor([[[3.0, 2.0]]])), torch.tensor([[[5.0, 2.0, 6.0]]]))
    torch.testing.assert_close(layer.weight, torch.tensor([[3.0, -2.0], [0.0, 1.0], [-3.0, 5.0]]))


def merged_by_hand(model):
    """A deep copy with W + scale B A written into plain weights, by nothing but the definition."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for adapter in adapters(twin).values():
            if isinstance(adapter, LoraExperts):
                for expert in range(len(adapter.base.down_EFD)):
                    for weight, a, b in adapter.deltas():
                        weight[expert] += adapter.scale * a[expert] @ b[expert]
            else:
                adapter.base.weight += adapter.scale * adapter.lora_B @ adapter.lora_A
    drop_lora(twin)
    return twin


def test_the_delta_is_that_of_the_definition(plain):
    before = logits(plain)
    model = trained(plain)
    reference = merged_by_hand(model)
    expected = logits(reference)
    assert (expected - before).abs().max() > 0.1
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=2e-5)
    merge_lora(model)
    assert model.state_dict().keys() == reference.state_dict().keys()
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_the_merged_weights(plain):
    """dL/dA and dL/dB follow from dL/dW of the merged model by the chain rule."""
    model = trained(plain)
    reference = merged_by_hand(model)
    weights_BTV = torch.randn(2, 9, 50)
    (logits(model) * weights_BTV).sum().backward()
    (logits(reference) * weights_BTV).sum().backward()
    for path, adapter in adapters(model).items():
        module = reference.get_submodule(path)
        stacked = isinstance(adapter, LoraExperts)
        weights = (module.gate_up_EDF, module.down_EFD) if stacked else (module.weight,)
        pairs = [(left, right, weight.grad) for (_, left, right), weight in zip(adapter.deltas(), weights, strict=True)]
        for left, right, gradient in pairs:
            expected = adapter.scale * gradient @ right.mT, adapter.scale * left.mT @ gradient
            torch.testing.assert_close(left.grad, expected[0], rtol=1e-3, atol=1e-4, msg=path)
            torch.testing.assert_close(right.grad, expected[1], rtol=1e-3, atol=1e-4, msg=path)


def test_only_adapters_are_trained(plain):
    model = trained(plain, targets=("attention", "ffn", "experts"))
    logits(model.train()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        assert (parameter.grad is not None) == ("lora_" in name), name
    assert not any("router" in path for path in adapters(model))
    assert not any(path.startswith("mtp") for path in adapters(model))


@pytest.mark.parametrize("fold", [False, True])
def test_decoding_sees_the_adapters(plain, fold):
    """Token by token, so that MLA attends to the latent itself, which needs the whole matrix of an adapted layer."""
    model = trained(plain)
    expected = logits(model)
    with torch.inference_mode(), folded(model if fold else nn.ModuleList()):
        cache = model.new_cache(2, 9)
        pieces = [IDS[:, :4], *IDS[:, 4:].split(1, dim=1)]
        hidden = torch.cat([model.forward_cached(piece, cache) for piece in pieces], dim=1)
        torch.testing.assert_close(model.logits(hidden), expected, rtol=1e-4, atol=2e-5)


def test_folding_is_undone_bit_for_bit_also_after_an_error(plain):
    model = trained(plain)
    before, expected = copy.deepcopy(model.state_dict()), logits(model)

    def interrupted():
        with folded(model):
            torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=2e-5)
            name = "layers.0.attention.o.base.weight"
            assert not torch.equal(model.state_dict()[name], before[name])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(logits(model), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_dropout_is_of_training_only(dense, random_model):
    model = trained(random_model(dense()), dropout=0.5, targets=["attention", "ffn"])
    reference = copy.deepcopy(model)
    for adapter in adapters(reference).values():
        adapter.dropout = 0.0
    assert torch.equal(logits(model), logits(reference))
    assert not torch.equal(logits(model.train()), logits(reference))


def test_adapters_stay_in_float32_beside_half_precision(dense, random_model):
    model = random_model(dense()).to(torch.bfloat16)
    add_lora(model, LoraConfig(rank=4))
    layer = adapters(model)["layers.0.attention.q"]
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
    with torch.no_grad():
        layer.lora_B.normal_()
    x = torch.randn(5, 16, dtype=torch.bfloat16)
    found = layer(x)
    assert found.dtype == torch.bfloat16
    expected = x.float() @ (layer.base.weight.float() + layer.scale * layer.lora_B @ layer.lora_A).T
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.2)


def test_what_cannot_be_adapted_is_said(sparse, dense, random_model):
    with pytest.raises(ConfigError, match=r"lora\.targets: the model has no experts or router to adapt"):
        add_lora(random_model(dense()), LoraConfig(targets=("experts", "router")))
    with pytest.raises(ConfigError, match=r"lora\.rank must be a multiple of 4 for experts, got 6"):
        add_lora(random_model(sparse()), LoraConfig(rank=6))
    model = trained(random_model(sparse()), rank=6, targets=["attention"])
    with pytest.raises(ConfigError, match="has adapters already"):
        add_lora(model, LoraConfig())


def test_no_tensor_as_large_as_a_matrix_is_made(random_model, dense):
    """Neither the delta of a matrix nor a gradient of one exists at any moment: that is what LoRA is for."""
    model = random_model(dense(width=64, ffn_width=320, layers=1))
    add_lora(model, LoraConfig(rank=4, targets=("ffn",)))
    shapes = {(320, 64), (64, 320)}
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor) and tuple(tensor.shape) in shapes and not tensor._is_view():
                    seen.append(str(function))
            return result

    with Watch():
        logits(model).sum().backward()
    gc.collect()
    assert [name for name in seen if "detach" not in name and "t.default" not in name] == []
