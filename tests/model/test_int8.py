"""Weights in 8 bits: what is packed and unpacked, and whole models against the same with their weights widened.

Shapes: `O` outputs, `I` inputs.
"""

import copy

import pytest
import torch

from octavo.errors import ConfigError
from octavo.model.int8 import Int8Embedding, Int8Linear, pack, unpack
from octavo.model.lora import LoraConfig, add_lora
from octavo.model.quantize import is_quantized, quantize
from octavo.model.transformer import Transformer

MODELS = {
    "mla": lambda sparse, dense: sparse(attention={"q_rank": 10}, tie_embeddings=True),
    "softmax": lambda sparse, dense: sparse(moe={"scoring": "softmax", "shared_experts": 0, "groups": 2}),
    "gqa": lambda sparse, dense: dense(attention={"qkv_bias": True, "qk_norm": "head"}, tie_embeddings=True),
}


@pytest.fixture(params=MODELS)
def model(request, sparse, dense, random_model):
    return random_model(MODELS[request.param](sparse, dense))


def widened(model: Transformer) -> Transformer:
    """A float model of the rounded weights."""
    floats = Transformer(model.config).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if name in floats.state_dict()}
    for path, module in model.named_modules():
        if isinstance(module, Int8Linear | Int8Embedding):
            state[f"{path}.weight"] = module.weight
            if module.bias is not None:
                state[f"{path}.bias"] = module.bias
        elif type(module).__name__ == "Int8Experts":
            for name, outputs, inputs, leaf in (
                ("gate_up", 2 * module.hidden, module.width, "gate_up_EDF"),
                ("down", module.width, module.hidden, "down_EFD"),
            ):
                packed = zip(getattr(module, f"{name}_values"), getattr(module, f"{name}_scales"), strict=True)
                state[f"{path}.{leaf}"] = torch.stack([unpack(*each, outputs, inputs).T for each in packed])
    floats.load_state_dict(state)
    return floats


def test_rounding_by_hand():
    w_OI = torch.zeros(1, 33)
    w_OI[0, :4] = torch.tensor([127.0, -63.4, 0.6, 1.0])
    w_OI[0, 32] = -0.25
    values, scales = pack(w_OI)
    assert (values.shape, scales.shape) == ((1, 2, 8, 16, 4), (1, 2, 16))
    torch.testing.assert_close(scales[0, :, 0], torch.tensor([1.0, 0.25 / 127]))
    assert values[0, 0, 0, 0].tolist() == [255, 128 - 63, 129, 129]
    assert values[0, 1, 0, 0].tolist() == [1, 128, 128, 128]
    back = unpack(values, scales, 1, 33)
    assert back[0, :4].tolist() == [127.0, -63.0, 1.0, 1.0]
    assert back[0, 32].item() == pytest.approx(-0.25)


def test_what_is_lost_is_half_a_step():
    torch.manual_seed(0)
    w_OI = torch.randn(50, 100)
    steps = w_OI.abs().amax(1, keepdim=True) / 127  # of a whole row: no group's step is larger
    assert ((unpack(*pack(w_OI), 50, 100) - w_OI).abs() <= steps / 2 + 1e-6).all()


def test_embedding_rows_are_those_of_the_widened_matrix():
    embedding = Int8Embedding(torch.randn(50, 40))
    ids = torch.tensor([[0, 49, 17], [16, 15, 0]])
    assert torch.equal(embedding(ids), embedding.weight[ids])


def test_the_model_computes_with_rounded_weights(model, way):
    """Packed, prefill and decoding. The kernels round activations too, and a token may then choose another expert."""
    quantize(model, "int8")
    expected_model = widened(model)
    ids = torch.randint(0, 50, (2, 12))
    positions = torch.arange(12).expand(2, 12)

    def check(found, expected):
        difference = (found - expected).abs()
        assert difference.mean() < (1e-5 if way == "torch" else 0.05)

    with torch.inference_mode():
        expected = expected_model.logits(expected_model(ids, positions))
        assert expected.std() > 0.5
        check(model.logits(model(ids, positions)), expected)
        cache = model.new_cache(2, 12)
        hidden = [model.forward_cached(ids[:, :5], cache)]
        hidden += [model.forward_cached(ids[:, t : t + 1], cache) for t in range(5, 12)]
        check(model.logits(torch.cat(hidden, 1)), expected)


def test_only_kernels_decode_what_the_modules_compute(model, monkeypatch):
    """One call for all layers and the modules one by one round alike: equal to float32, far closer than int8 is."""
    quantize(model, "int8")
    ids = torch.randint(0, 50, (3, 6))
    with torch.inference_mode():
        cache, other = model.new_cache(3, 6), model.new_cache(3, 6)
        found = model.forward_cached(ids, cache)
        monkeypatch.setattr(type(model), "_decoder_for", lambda *_: None)
        torch.testing.assert_close(model.forward_cached(ids, other), found, rtol=0, atol=0.03)


def test_memory(dense, random_model):
    """36 bytes for 32 weights: a byte each, and the scale."""
    model = random_model(dense(width=128, vocab_size=512, ffn_width=256, layers=2, tie_embeddings=True))
    floats = sum(p.numel() * 4 for p in model.parameters() if p.ndim == 2)
    quantize(model, "int8")
    assert sum(buffer.nbytes for name, buffer in model.named_buffers() if "rope" not in name) == floats * 36 / 32 / 4
    assert all(parameter.ndim == 1 for parameter in model.parameters())


def test_no_gradient_no_mtp_and_no_adapters(sparse, random_model):
    model = random_model(sparse(mtp_layers=1))
    adapted = copy.deepcopy(model)
    quantize(model, "int8")
    assert is_quantized(model)
    assert not is_quantized(adapted)
    assert len(model.mtp) == 0
    assert not any(parameter.requires_grad for parameter in model.parameters())
    add_lora(adapted, LoraConfig(rank=4))
    with pytest.raises(ConfigError, match="merge them first"):
        quantize(adapted, "int8")
