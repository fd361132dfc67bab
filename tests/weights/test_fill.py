"""From any source into a model: checked as a whole before memory is taken."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from octavo.errors import CheckpointError
from octavo.model.transformer import Transformer
from octavo.weights.fill import build_model, fill_model, is_finite
from octavo.weights.names import hugging_face_views
from octavo.weights.source import TensorSource


class FromMemory(TensorSource):
    """Tensors of a dict, and what was read of them."""

    def __init__(self, tensors):
        super().__init__(Path("memory"))
        self.tensors = tensors
        self.was_read = []

    def names(self):
        return frozenset(self.tensors)

    def shape(self, name):
        return tuple(self.tensors[name].shape)

    def read(self, name):
        self.was_read.append(name)
        return self.tensors[name]

    def close(self):
        self.tensors.clear()


def source_of(model: Transformer) -> FromMemory:
    main, mtp = hugging_face_views(model)
    return FromMemory({name: view.clone() for name, view in (main | mtp).items()})


def assert_same(first: Transformer, second: Transformer):
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@pytest.fixture
def no_allocation(monkeypatch):
    def refuse(config):
        raise AssertionError("memory was taken")

    monkeypatch.setattr(Transformer, "empty", refuse)


def refused(config, source, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        build_model(config, source)
    assert "\n" not in str(caught.value)


def test_every_tensor_is_read_once(any_model):
    source = source_of(any_model)
    built = build_model(any_model.config, source)
    assert_same(built, any_model)
    assert sorted(source.was_read) == sorted(source.names())


def test_filling_replaces_all_weights(any_model):
    model = Transformer(any_model.config)
    fill_model(model, source_of(any_model))
    assert_same(model, any_model)


def test_a_model_that_is_refused_stays_as_it_was(model_of):
    model, source = model_of("llama"), source_of(model_of("llama"))
    for tensor in source.tensors.values():
        tensor.zero_()
    source.tensors["model.norm.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"memory: model.norm.weight has shape \(3,\), the config says \(16,\)"):
        fill_model(model, source)
    assert_same(model, model_of("llama"))


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"],
)
def test_what_the_config_says_already_is_not_read(model_of, name):
    source = source_of(model_of("llama"))
    source.tensors[name] = torch.ones(3)
    assert_same(build_model(model_of("llama").config, source), model_of("llama"))
    assert name not in source.was_read


def test_a_tied_head_may_be_in_the_file(model_of):
    model, source = model_of("qwen2"), source_of(model_of("qwen2"))
    assert "lm_head.weight" not in source.tensors
    source.tensors["lm_head.weight"] = source.tensors["model.embed_tokens.weight"].clone()
    assert_same(build_model(model.config, source), model)


def test_a_tied_head_that_is_another_matrix_is_refused(model_of):
    """Else the model would silently be another one."""
    config, source = model_of("qwen2").config, source_of(model_of("qwen2"))
    source.tensors["lm_head.weight"] = source.tensors["model.embed_tokens.weight"] + 1
    refused(config, source, "memory: lm_head.weight is not model.embed_tokens.weight, .* set tie_word_embedd")
    source.tensors["lm_head.weight"] = torch.zeros(280, 15)
    refused(config, source, r"memory: lm_head.weight has shape \(280, 15\), the config says \(280, 16\)")


def test_what_mtp_layers_repeat_of_the_main_model_is_not_read(model_of):
    """DeepSeek's files hold embedding and head once more in each; the layers before them have no such thing."""
    model, source = model_of("deepseek_v3, two mtp layers"), source_of(model_of("deepseek_v3, two mtp layers"))
    for layer in (2, 3):
        source.tensors[f"model.layers.{layer}.embed_tokens.weight"] = torch.zeros(280, 16)
        source.tensors[f"model.layers.{layer}.shared_head.head.weight"] = torch.zeros(280, 16)
    assert_same(build_model(model.config, source), model)
    for layer in (1, 4):
        name = f"model.layers.{layer}.embed_tokens.weight"
        more = FromMemory(source.tensors | {name: torch.zeros(280, 16)})
        refused(model.config, more, f"memory: {name} is not part of the config's model")


def test_a_copy_without_its_mtp_layers(model_of):
    config, source = model_of("deepseek_v3, two mtp layers").config, source_of(model_of("deepseek_v3"))
    refused(config, source, r"layers.2.eh_proj.weight is missing \(.*\).* set num_nextn_predict_layers to 0")
    del source.tensors["model.norm.weight"]
    with pytest.raises(CheckpointError) as caught:
        build_model(config, source)
    assert "num_nextn_predict_layers" not in str(caught.value)


@pytest.mark.usefixtures("no_allocation")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 10**9}, r"memory: 21 tensors, too few for the 1,000,000,000 layers that the config describes"),
        ({"mtp_layers": 10**9}, r"memory: 21 tensors, too few for the 1,000,000,002 layers"),
        ({"vocab_size": 10**12}, r"holds 12,\d\d\d parameters, the config describes a model of 32,0\d\d,\d\d\d,\d\d\d"),
        ({"width": 2**62}, r"holds 12,\d\d\d parameters, the config describes a model of \d"),
        ({"ffn_width": 10**30}, r"holds 12,\d\d\d parameters, the config describes a model of \d"),
        ({"attention": {"kind": "gqa", "heads": 10**9, "kv_heads": 1, "head_dim": 10**9}}, "holds 12,.* parameters"),
        ({"ffn_width": 25}, r"gate_proj.weight has shape \(24, 16\), the config says \(25, 16\)"),
        ({"layers": 3}, r"model.layers.2.input_layernorm.weight is missing \(9 missing, 0 unexpected tensors\)"),
        ({"layers": 1}, r"model.layers.1.input_layernorm.weight is not part of the config's model \(0 missing, 9 un"),
    ],
)
def test_a_config_that_asks_for_more_than_there_is_takes_no_memory(model_of, change, message):
    model = model_of("llama")
    config = type(model.config).parse(model.config.dump() | change)
    started = time.perf_counter()
    refused(config, source_of(model), message)
    assert time.perf_counter() - started < 1


@pytest.mark.usefixtures("no_allocation")
def test_a_billion_experts_take_no_memory(model_of):
    model = model_of("deepseek_v3")
    values = model.config.dump()
    config = type(model.config).parse(values | {"moe": values["moe"] | {"experts": 10**9}})
    refused(config, source_of(model), "memory: .* tensors, too few for the 2 layers of 1,000,000,000 experts")


@pytest.mark.usefixtures("no_allocation")
def test_a_model_larger_than_the_memory_is_refused(model_of, monkeypatch):
    """A file with holes is as large as it likes; so its size proves nothing."""
    model = model_of("llama")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10_000))
    refused(model.config, source_of(model), r"memory: the model needs 0.0 GB of memory in float32, this machine")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_finite(value):
    tensor = torch.randn(3, 5)
    assert is_finite(tensor)
    assert is_finite(tensor[:0])
    tensor[1, 2] = value
    assert not is_finite(tensor)
    assert not is_finite(torch.tensor(value))
