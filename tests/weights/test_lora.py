"""Adapter folders: back bit for bit, opened by `peft` as they are, and peft's opened here."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from octavo.errors import CheckpointError
from octavo.model.config import ModelConfig
from octavo.model.lora import LoraConfig, add_lora, has_lora, merge_lora
from octavo.model.transformer import Transformer
from octavo.weights.hf import save_model
from octavo.weights.lora import load_adapter, save_adapter

transformers.utils.logging.disable_progress_bar()
# peft still asks for what transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
IDS, POSITIONS = torch.arange(18).view(2, 9) * 7 % 280, torch.arange(9).expand(2, 9)
EVERYTHING = ("attention", "ffn", "experts", "router")
DENSE = ["llama", "qwen2", "qwen3"]
SPARSE = ["deepseek_v3", "deepseek_v3, query rank, groups, yarn, tied"]


def randomize(model, spread=0.1):
    """Adapters as if trained: B is no longer 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, spread)


def wrapped(model, **values):
    config = LoraConfig.parse({"rank": 4, "alpha": 6.0, "targets": EVERYTHING} | values)
    add_lora(model, config)
    randomize(model)
    return config


@torch.no_grad()
def logits(model):
    return model.logits(model(IDS, POSITIONS))


def saved_base(model, tokenizer, folder):
    save_model(folder, model, tokenizer)
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("name", DENSE + SPARSE)
@pytest.mark.parametrize("targets", [EVERYTHING, ("attention",), ("ffn", "experts")])
def test_peft_opens_ours(model_of, tokenizer, tmp_path, name, targets):
    model = model_of(name)
    peer = saved_base(model, tokenizer, tmp_path / "base")
    before = logits(model)
    config = wrapped(model, targets=targets)
    expected = logits(model)
    assert (expected - before).abs().max() > 0.1
    save_adapter(tmp_path / "adapter", model, config, base="base")
    peer = peft.PeftModel.from_pretrained(peer, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(peer(IDS).logits, expected, rtol=0, atol=1e-4)
    # Nothing was left out, and nothing was adapted that has no tensor in the file.
    names = {name.replace(".default", "") for name, _ in peer.named_parameters() if "lora_" in name}
    assert names == load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()


def test_peft_opens_ours_of_grouped_attention_with_experts(tokenizer, tmp_path):
    torch.manual_seed(0)
    gqa = {"kind": "gqa", "heads": 4, "kv_heads": 2, "head_dim": 6, "qk_norm": "head"}
    moe = {"experts": 6, "experts_per_token": 2, "expert_width": 8, "shared_experts": 0, "scoring": "softmax"}
    common = {"vocab_size": 280, "width": 16, "layers": 2, "ffn_width": 24, "init_std": 0.3}
    model = Transformer(ModelConfig.parse(common | {"attention": gqa, "moe": moe})).eval()
    peer = saved_base(model, tokenizer, tmp_path / "base")
    assert peer.config.model_type == "qwen3_moe"
    config = wrapped(model)
    save_adapter(tmp_path / "adapter", model, config, base="base")
    peer = peft.PeftModel.from_pretrained(peer, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(peer(IDS).logits, logits(model), rtol=0, atol=1e-4)


PEFT = {
    "llama": {"target_modules": "all-linear"},
    "qwen2": {"target_modules": ["q_proj", "v_proj", "down_proj"], "use_rslora": True},
    "deepseek_v3": {"target_modules": ["q_proj", "kv_b_proj", "o_proj"]},
    "deepseek_v3, query rank, groups, yarn, tied": {
        "target_modules": ["q_a_proj", "q_b_proj"],
        "target_parameters": ["experts.gate_up_proj", "experts.down_proj", "mlp.gate.weight", "up_proj.weight"],
    },
    "deepseek_v3, two mtp layers": {"target_modules": [], "target_parameters": ["experts.gate_up_proj"]},
    "deepseek_v3, no shared expert": {"target_modules": [], "target_parameters": ["experts.down_proj"]},
}


# torch says so of a shared expert of width 0.
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("name", PEFT)
def test_ours_opens_pefts(model_of, tokenizer, tmp_path, name):
    model = model_of(name)
    peer = saved_base(model, tokenizer, tmp_path / "base")
    peer = peft.get_peft_model(peer, peft.LoraConfig(r=4, lora_alpha=10, **PEFT[name])).eval()
    randomize(peer)
    peer.save_pretrained(tmp_path / "adapter")
    load_adapter(tmp_path / "adapter", model)
    with torch.no_grad():
        torch.testing.assert_close(logits(model), peer(IDS).logits, rtol=0, atol=1e-4)
    # And saved again it is still what peft reads.
    config = load_adapter(tmp_path / "adapter", again := model_of(name))
    save_adapter(tmp_path / "again", again, config, base="base")
    second = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    second = peft.PeftModel.from_pretrained(second, tmp_path / "again")
    with torch.no_grad():
        torch.testing.assert_close(second(IDS).logits, peer(IDS).logits, rtol=0, atol=1e-4)


def test_saved_and_loaded_is_the_same_bit_for_bit(any_model, tmp_path, model_of):
    config = wrapped(any_model, targets=["attention", "experts", "router"])
    save_adapter(tmp_path / "adapter", any_model, config, base="base")
    found = {name: p for name, p in any_model.named_parameters() if p.requires_grad}
    merged = any_model
    expected = logits(any_model)
    merge_lora(merged)
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=2e-5)
    fresh = next(m for name in SHAPES if (m := model_of(name)).config == any_model.config)
    assert load_adapter(tmp_path / "adapter", fresh) == LoraConfig(rank=4, alpha=6.0)
    again = {name: p for name, p in fresh.named_parameters() if p.requires_grad}
    assert found.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in found.items())
    assert torch.equal(logits(fresh), expected)


SHAPES = [*DENSE, *SPARSE, "deepseek_v3, two mtp layers", "deepseek_v3, no shared expert"]


def test_experts_of_earlier_pefts_are_read(model_of, tmp_path):
    """They had A and B on the other sides, since [E, out, in] was taken for [E, in, out]."""
    model = model_of()
    config = wrapped(model, targets=["experts"])
    save_adapter(tmp_path / "adapter", model, config, base="base")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    experts, rank = 6, 4
    for name in [name for name in tensors if "lora_A" in name]:
        a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
        # delta[e] = B_e A_e, [out, in]; as [in', out'] it is the product of A'_e^T and B'_e^T.
        tensors[name] = b.view(-1, rank, experts).permute(2, 1, 0).reshape(experts * rank, -1).contiguous()
        swapped = a.view(experts, rank, -1).permute(2, 1, 0)
        tensors[name.replace("lora_A", "lora_B")] = swapped.reshape(-1, rank * experts).contiguous()
    save_file(tensors, path)
    fresh = model_of()
    load_adapter(tmp_path / "adapter", fresh)
    assert torch.equal(logits(fresh), logits(model))


def test_targets_are_named_whole_where_endings_would_mean_more(model_of, tmp_path):
    model = model_of("llama")
    config = wrapped(model)
    save_adapter(tmp_path / "all", model, config, base="base")
    assert json.loads((tmp_path / "all" / "adapter_config.json").read_text())["target_modules"] == [
        "down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj",
    ]  # fmt: skip
    path = tmp_path / "all" / "adapter_model.safetensors"
    one = {name: tensor for name, tensor in load_file(path).items() if "layers.1.self_attn.q_proj" in name}
    save_file(one, path)
    partly = model_of("llama")
    save_adapter(tmp_path / "one", partly, load_adapter(tmp_path / "all", partly), base="base")
    values = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert values["target_modules"] == ["model.layers.1.self_attn.q_proj"]


@pytest.fixture
def adapter(model_of, tmp_path):
    """(folder, tensors, config values) of a small good adapter."""
    model = model_of("llama")
    config = wrapped(model, targets=["attention"])
    save_adapter(tmp_path / "adapter", model, config, base="base")
    return tmp_path / "adapter"


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
EMBEDDING = "base_model.model.model.embed_tokens.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update({Q: t[Q][:, 1:].contiguous()}),
            r"q_proj: lora_A.weight has shape \(4, 15\), expected \(4, 16\)",
        ),
        (lambda t: t.update({Q: t[Q] * float("nan")}), r"q_proj: lora_A.weight holds NaN or infinity"),
        (lambda t: t.pop(Q), r"layers\.0\.self_attn\.q_proj has lora_B only; expected lora_A and lora_B"),
        (lambda t: t.update(other=t.pop(Q)), r"other of shape \(4, 16\) is no factor of LoRA"),
        (lambda t: t.clear(), "holds no adapter"),
        (
            lambda t: t.update({EMBEDDING.replace("A", side): t[Q].clone() for side in "AB"}),
            "model.embed_tokens has an adapter, but the model has no such module, or none that can be adapted here",
        ),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_the_model_left_as_it_was(model_of, adapter, change, message):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    model = model_of("llama")
    before = logits(model)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_adapter(adapter, model)
    assert str(caught.value).startswith(str(path))
    assert not has_lora(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3', and only 'LORA' is supported"),
        ({"use_dora": True}, "use_dora is True"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"r": 0}, "r or lora_alpha: .*rank.* greater than 0"),
        ({"lora_alpha": "16"}, "r or lora_alpha: .*alpha.*number"),
    ],
)
def test_other_adapters_are_refused(model_of, adapter, change, message):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_adapter(adapter, model_of("llama"))


def test_files_that_are_missing_damaged_or_pickled_are_named(model_of, adapter):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: cannot be read as safetensors"):
        load_adapter(adapter, model_of("llama"))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: no such file"):
        load_adapter(adapter, model_of("llama"))
    (adapter / "adapter_model.bin").touch()
    with pytest.raises(CheckpointError, match="pickled weights are refused"):
        load_adapter(adapter, model_of("llama"))
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: no such file"):
        load_adapter(adapter, model_of("llama"))
