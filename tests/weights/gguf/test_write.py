"""Files that we write: read back, read by the gguf package, opened by `transformers`, and refused in time."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import quantize

from octavo.errors import CheckpointError, StorageError
from octavo.weights.gguf import KINDS, load_gguf, write_gguf
from octavo.weights.names import hugging_face_views

_MLA = {"kind": "mla", "heads": 2, "kv_rank": 12, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
_MOE = {"experts": 6, "experts_per_token": 2, "expert_width": 8, "routed_scale": 1.7}
# Rows of whole blocks.
_WIDE = {
    "width": 64,
    "ffn_width": 96,
    "attention": {"kind": "mla", "heads": 2, "q_rank": 32, "kv_rank": 32, "nope_dim": 32, "rope_dim": 4, "v_dim": 32},
    "moe": _MOE | {"expert_width": 40},
}


def logits(model, ids):
    with torch.no_grad():
        return model.logits(model(ids, torch.arange(ids.shape[1]).expand_as(ids)))


def greatest_difference(first, second) -> float:
    ids = torch.randint(0, 280, (2, 17), generator=torch.Generator().manual_seed(1))
    return float((logits(first, ids) - logits(second, ids)).abs().max())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def test_written_and_read_is_the_same(exact_model, tokenizer, path):
    """Config and all weights, bit for bit, for every architecture."""
    write_gguf(path, exact_model, tokenizer, "F32")
    loaded, _ = load_gguf(path)
    assert loaded.config == exact_model.config
    ours, theirs = exact_model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize(
    "shape",
    [
        {"attention": _MLA, "moe": _MOE},
        {"attention": _MLA, "moe": _MOE | {"leading_dense_layers": 2}},
        {"attention": _MLA, "moe": _MOE, "tie_embeddings": True, "mtp_layers": 1},
        {"attention": _MLA | {"q_rank": 10}, "moe": _MOE | {"shared_experts": 0}},
        {"attention": _MLA, "moe": _MOE | {"shared_experts": 0, "leading_dense_layers": 0}},
        {
            "attention": {"kind": "gqa", "heads": 4, "kv_heads": 4, "qk_norm": "projection"},
            "moe": _MOE
            | {"scoring": "softmax", "shared_experts": 0, "leading_dense_layers": 0, "routed_scale": 1.0}
            | {"normalize_gates": False},
            "tie_embeddings": True,
            "ffn_width": 8,
        },
        {"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2, "sliding_window": 32}},
    ],
    ids=[
        "no query rank",
        "no query rank, dense",
        "no query rank, tied, MTP",
        "no shared expert",
        "neither",
        "OLMoE, tied",
        "sliding window",
    ],
)
def test_forms_that_llama_cpp_lacks_are_written_as_equal_ones(model_of_shape, tokenizer, path, shape):
    model = model_of_shape(shape)
    with torch.no_grad():
        model.embed.weight.mul_(10)  # as in a trained model: epsilon is nothing beside the residual stream
    write_gguf(path, model, tokenizer, "F32")
    loaded, _ = load_gguf(path)
    assert loaded.config != model.config
    largest = float(logits(model, torch.arange(17)[None]).abs().max())
    assert greatest_difference(model, loaded.eval()) < 1e-5 * largest
    metadata = {key: field.contents() for key, field in GGUFReader(path).fields.items()}
    if shape["attention"]["kind"] == "mla":
        assert metadata["deepseek2.attention.q_lora_rank"] == shape["attention"].get("q_rank", 16)
        assert metadata["deepseek2.expert_shared_count"] == 1


def test_an_equal_form_rounds_what_the_original_rounds(model_of_shape, tokenizer, path):
    """What is added to give a query rank is exact in every kind of file."""
    model = model_of_shape({"attention": _MLA, "moe": _MOE})
    write_gguf(path, model, tokenizer, "F16")
    loaded, _ = load_gguf(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.endswith("router.weight"):
                parameter.copy_(parameter.half())
    assert greatest_difference(model, loaded.eval()) < 2e-5
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert kinds["blk.0.attn_q_a.weight"] == "F32"


def test_metadata_for_llama_cpp(model_of_shape, tokenizer, path):
    """Every key that its deepseek2 asks for, with the types that it asks for."""
    write_gguf(path, model_of_shape(_WIDE), tokenizer, "Q8_0")
    fields = GGUFReader(path).fields
    expected = {
        "general.architecture": "deepseek2",
        "general.type": "model",
        "general.name": "model",
        "general.file_type": 7,
        "general.quantization_version": 2,
        "deepseek2.vocab_size": 280,
        "deepseek2.context_length": 256,
        "deepseek2.embedding_length": 64,
        "deepseek2.block_count": 2,
        "deepseek2.feed_forward_length": 96,
        "deepseek2.attention.head_count": 2,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "deepseek2.attention.q_lora_rank": 32,
        "deepseek2.attention.kv_lora_rank": 32,
        "deepseek2.attention.key_length": 36,
        "deepseek2.attention.value_length": 32,
        "deepseek2.attention.key_length_mla": 36,
        "deepseek2.attention.value_length_mla": 32,
        "deepseek2.rope.dimension_count": 4,
        "deepseek2.rope.freq_base": 10000.0,
        "deepseek2.leading_dense_block_count": 1,
        "deepseek2.expert_feed_forward_length": 40,
        "deepseek2.expert_count": 6,
        "deepseek2.expert_used_count": 2,
        "deepseek2.expert_shared_count": 1,
        "deepseek2.expert_weights_scale": pytest.approx(1.7),
        "deepseek2.expert_weights_norm": True,
        "deepseek2.expert_gating_func": 2,
    }
    found = {key: field.contents() for key, field in fields.items() if not key.startswith(("GGUF", "tokenizer"))}
    assert found == expected
    for key, field in fields.items():
        kind = {bool: "BOOL", int: "UINT32", str: "STRING"}.get(type(expected.get(key)))
        assert kind in (None, field.types[0].name), key
    assert len(fields["tokenizer.ggml.tokens"].contents()) == 280


def test_tensors_for_llama_cpp(model_of_shape, tokenizer, path):
    """Those that its deepseek2 asks for, in its dimensions (fastest first), and no other: it refuses more."""
    write_gguf(path, model_of_shape(_WIDE), tokenizer, "F32")
    found = {tensor.name: tensor.shape.tolist() for tensor in GGUFReader(path).tensors}
    attention = {
        "attn_norm": [64],
        "attn_q_a": [64, 32],
        "attn_q_a_norm": [32],
        "attn_q_b": [32, 2 * 36],
        "attn_kv_a_mqa": [64, 32 + 4],
        "attn_kv_a_norm": [32],
        "attn_k_b": [32, 32, 2],
        "attn_v_b": [32, 32, 2],
        "attn_output": [2 * 32, 64],
        "ffn_norm": [64],
    }
    dense = {"ffn_gate": [64, 96], "ffn_up": [64, 96], "ffn_down": [96, 64]}
    sparse = {
        "ffn_gate_inp": [64, 6],
        "ffn_gate_exps": [64, 40, 6],
        "ffn_up_exps": [64, 40, 6],
        "ffn_down_exps": [40, 64, 6],
        "ffn_gate_shexp": [64, 40],
        "ffn_up_shexp": [64, 40],
        "ffn_down_shexp": [40, 64],
    }
    assert found == {
        "token_embd.weight": [64, 280],
        "output_norm.weight": [64],
        "output.weight": [64, 280],
        **{f"blk.0.{name}.weight": shape for name, shape in (attention | dense).items()},
        **{f"blk.1.{name}.weight": shape for name, shape in (attention | sparse).items()},
        "blk.1.exp_probs_b.bias": [6],
    }


def test_kinds_of_tensors(model_of_shape, tokenizer, path):
    """Vectors and the router stay F32, rows that are not whole blocks F16, small kinds keep the tables at 8 bits."""
    model = model_of_shape(_WIDE)
    write_gguf(path, model, tokenizer, "Q4_0")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}
    assert kinds["token_embd.weight"] == kinds["output.weight"] == "Q8_0"
    assert kinds["blk.1.attn_kv_a_norm.weight"] == kinds["blk.1.exp_probs_b.bias"] == "F32"
    assert kinds["blk.1.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.1.ffn_down_exps.weight"] == kinds["blk.1.ffn_down_shexp.weight"] == "F16"  # rows of 40
    assert kinds["blk.1.ffn_gate_exps.weight"] == kinds["blk.0.attn_k_b.weight"] == "Q4_0"
    assert set(kinds.values()) == {"Q4_0", "Q8_0", "F16", "F32"}


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_package(model_of_shape, tokenizer, path, kind):
    model = model_of_shape(_WIDE)
    write_gguf(path, model, tokenizer, kind)
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    views, _ = hugging_face_views(model)
    experts = [views[f"model.layers.1.mlp.experts.{e}.up_proj.weight"] for e in range(6)]
    up = tensors["blk.1.ffn_up_exps.weight"]
    assert up.shape.tolist() == [64, 40, 6]
    expected = quantize(torch.stack(experts).numpy(), GGMLQuantizationType[kind])
    assert up.data.tobytes() == expected.tobytes()
    loaded, _ = load_gguf(path)
    worst = {"F32": 0, "F16": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2}.get(kind, 0.3)
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert (loaded.state_dict()[name] - tensor).abs().max() <= worst * tensor.abs().max(), name


def test_transformers_opens_it(model_of_shape, tokenizer, path):
    """Its own reader of GGUF files, which undoes the layout of queries and keys by itself."""
    import transformers

    for shape in (
        {"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}},
        {"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2, "qkv_bias": True}, "tie_embeddings": True},
    ):
        model = model_of_shape(shape)
        write_gguf(path, model, tokenizer, "F32")
        peer = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).eval()
        ids = torch.randint(0, 280, (2, 17))
        with torch.no_grad():
            torch.testing.assert_close(logits(model, ids), peer(ids).logits, rtol=0, atol=1e-4)


def test_more_rows_than_tokens(model_of_shape, tokenizer, path):
    """Embeddings are often padded; llama.cpp counts tokens."""
    model = model_of_shape({"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}, "vocab_size": 288})
    write_gguf(path, model, tokenizer, "F16")
    fields = GGUFReader(path).fields
    assert fields["tokenizer.ggml.tokens"].contents()[279:] == [
        fields["tokenizer.ggml.tokens"].contents(279),
        *(f"[PAD{number}]" for number in range(280, 288)),
    ]
    assert fields["tokenizer.ggml.token_type"].contents()[280:] == [5] * 8
    loaded, read = load_gguf(path)
    assert loaded.config.vocab_size == 288
    assert read.encode("Two and 2") == tokenizer.encode("Two and 2")
    smaller = model_of_shape({"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}, "vocab_size": 279})
    with pytest.raises(CheckpointError, match=r"model.gguf: the tokenizer has 280 tokens, the model only 279"):
        write_gguf(path, smaller, tokenizer, "F16")


def test_a_model_that_knows_no_such_file(model_of_shape, tokenizer, path):
    with pytest.raises(CheckpointError, match=r"kind 'Q2_K' cannot be written \(known: F32, F16, BF16, Q8_0, Q5_1"):
        write_gguf(path, model_of_shape({"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}}), tokenizer, "Q2_K")
    odd = {"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2, "qkv_bias": True, "head_dim": 6}}
    with pytest.raises(CheckpointError, match=r"knows qwen2 with heads of width / heads \(16 / 4\) only"):
        write_gguf(path, model_of_shape(odd), tokenizer, "F32")
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (float("nan"), "F32", "blk.1.ffn_down.weight holds nan, which F32 cannot store: use an earlier checkpoint"),
        (float("inf"), "BF16", "blk.1.ffn_down.weight holds inf, which BF16 cannot store: use an earlier checkpoint"),
        (-70000.0, "F16", "blk.1.ffn_down.weight holds 70000.0, which F16 cannot store: choose F32"),
    ],
)
def test_weights_that_cannot_be_stored(model_of_shape, tokenizer, path, value, kind, message):
    """The file that was there stays."""
    model = model_of_shape({"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}})
    write_gguf(path, model, tokenizer, "F16")
    before = path.read_bytes()
    with torch.no_grad():
        model.layers[1].ffn.down.weight[3, 3] = value
    with pytest.raises(CheckpointError, match=rf"model.gguf: {message}"):
        write_gguf(path, model, tokenizer, kind)
    assert path.read_bytes() == before
    assert [child.name for child in path.parent.iterdir()] == ["model.gguf"]


def test_a_full_disk_leaves_the_old_file(model_of_shape, tokenizer, path, monkeypatch):
    model = model_of_shape({"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}})
    write_gguf(path, model, tokenizer, "F16")
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("octavo.weights.gguf.write.quantize", full)
    with pytest.raises(StorageError, match=r"cannot write .*model.gguf: No space left on device"):
        write_gguf(path, model, tokenizer, "F32")
    assert path.read_bytes() == before
    assert [child.name for child in path.parent.iterdir()] == ["model.gguf"]


def test_a_loaded_model_trains(exact_model, tokenizer, path):
    write_gguf(path, exact_model, tokenizer, "Q8_0")
    model = load_gguf(path)[0].train()
    model(torch.arange(9)[None], torch.arange(9)[None]).square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name != "head.weight")


def test_shapes_that_disagree_and_weights_that_are_no_numbers(model_of_shape, tokenizer, path):
    """A file whose metadata is changed after it was written."""
    model = model_of_shape({"attention": {"kind": "gqa", "heads": 4, "kv_heads": 2}})
    write_gguf(path, model, tokenizer, "F32")
    content = path.read_bytes()

    def with_number(key: str, value: int) -> bytes:
        place = content.index(key.encode()) + len(key) + 4
        return content[:place] + value.to_bytes(4, "little") + content[place + 4 :]

    for key, value, message in [
        ("llama.feed_forward_length", 28, r"mlp.gate_proj.weight has shape \(24, 16\), the config says \(28, 16\)"),
        ("llama.block_count", 3, r"model.layers.2.* is missing"),
        ("llama.block_count", 1, r"model.layers.1.* is not part of the config's model"),
        ("llama.block_count", 2**31, r"too few for the 2,147,483,648 layers"),
        ("llama.vocab_size", 281, r"model.embed_tokens.weight has shape \(280, 16\), the config says \(281, 16\)"),
    ]:
        path.write_bytes(with_number(key, value))
        with pytest.raises(CheckpointError, match=rf"model.gguf: .*{message}") as caught:
            load_gguf(path)
        assert "\n" not in str(caught.value)
    place = content.index(model.layers[0].ffn.down.weight.detach().numpy().tobytes())
    path.write_bytes(content[:place] + np.float32(np.nan).tobytes() + content[place + 4 :])
    with pytest.raises(CheckpointError, match=r"model.layers.0.mlp.down_proj.weight holds NaN or infinity"):
        load_gguf(path)
