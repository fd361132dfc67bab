"""Metadata of published files, as far as it describes shapes; and of files that say what cannot be."""

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType

from octavo.errors import CheckpointError
from octavo.model.accounting import Accounting
from octavo.model.config import YarnConfig
from octavo.weights.gguf.config import config_of, is_lite, metadata_of
from octavo.weights.gguf.reader import GGUFFile, TensorInfo
from octavo.weights.hf_config import from_hugging_face, to_hugging_face


def file_of(architecture, metadata, rows=None, tensors=()):
    """A file of which only metadata and shapes are asked."""
    keys = {f"{architecture}.{key}": value for key, value in metadata.items()}
    shapes = {name: (4,) for name in tensors}
    if rows:
        shapes["token_embd.weight"] = (rows, metadata["embedding_length"])
    infos = {name: TensorInfo(name, shape, GGMLQuantizationType.F32, 0, 0) for name, shape in shapes.items()}
    return GGUFFile(Path("model.gguf"), {"general.architecture": architecture} | keys, infos, None)


def model_of(*arguments, **keywords):
    return from_hugging_face(config_of(file_of(*arguments, **keywords)), "model.gguf")


SMOLLM2 = {
    "block_count": 30,
    "context_length": 8192,
    "embedding_length": 576,
    "feed_forward_length": 1536,
    "attention.head_count": 9,
    "attention.head_count_kv": 3,
    "rope.freq_base": 100000.0,
    "attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "vocab_size": 49152,
    "rope.dimension_count": 64,
}
QWEN3_30B = {
    "block_count": 48,
    "context_length": 40960,
    "embedding_length": 2048,
    "feed_forward_length": 6144,
    "attention.head_count": 32,
    "attention.head_count_kv": 4,
    "rope.freq_base": 1000000.0,
    "attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "expert_used_count": 8,
    "attention.key_length": 128,
    "attention.value_length": 128,
    "expert_count": 128,
    "expert_feed_forward_length": 768,
}
OLMOE = {
    "block_count": 16,
    "context_length": 4096,
    "embedding_length": 2048,
    "feed_forward_length": 1024,
    "attention.head_count": 16,
    "attention.head_count_kv": 16,
    "rope.freq_base": 10000.0,
    "attention.layer_norm_rms_epsilon": 9.999999747378752e-06,
    "expert_used_count": 8,
    "expert_count": 64,
}
# Before keys and values of the absorbed form were told apart, and before the way of scoring was written.
V2_LITE = {
    "block_count": 27,
    "context_length": 163840,
    "embedding_length": 2048,
    "feed_forward_length": 10944,
    "attention.head_count": 16,
    "attention.head_count_kv": 16,
    "rope.freq_base": 10000.0,
    "attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "expert_used_count": 6,
    "leading_dense_block_count": 1,
    "vocab_size": 102400,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 192,
    "attention.value_length": 128,
    "expert_feed_forward_length": 1408,
    "expert_count": 64,
    "expert_shared_count": 2,
    "expert_weights_scale": 1.0,
    "rope.dimension_count": 64,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 40.0,
    "rope.scaling.original_context_length": 4096,
    "rope.scaling.yarn_log_multiplier": 0.07069999724626541,
}
R1 = {
    "block_count": 61,
    "context_length": 163840,
    "embedding_length": 7168,
    "feed_forward_length": 18432,
    "attention.head_count": 128,
    "attention.head_count_kv": 1,
    "rope.freq_base": 10000.0,
    "attention.layer_norm_rms_epsilon": 9.999999974752427e-07,
    "expert_used_count": 8,
    "expert_group_count": 8,
    "expert_group_used_count": 4,
    "leading_dense_block_count": 3,
    "vocab_size": 129280,
    "attention.q_lora_rank": 1536,
    "attention.kv_lora_rank": 512,
    "attention.key_length": 576,
    "attention.value_length": 512,
    "attention.key_length_mla": 192,
    "attention.value_length_mla": 128,
    "expert_feed_forward_length": 2048,
    "expert_count": 256,
    "expert_shared_count": 1,
    "expert_weights_scale": 2.5,
    "expert_weights_norm": True,
    "expert_gating_func": 2,
    "rope.dimension_count": 64,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 40.0,
    "rope.scaling.original_context_length": 4096,
    "rope.scaling.yarn_log_multiplier": 0.10000000149011612,
}


@pytest.mark.parametrize(
    ("architecture", "metadata", "rows", "tied", "parameters"),
    [
        ("llama", SMOLLM2, 49152, True, 134_515_008),
        ("qwen3moe", QWEN3_30B, 151936, False, 30_532_122_624),
        ("olmoe", OLMOE, 50304, False, 6_919_161_856),
        ("deepseek2", V2_LITE, 102400, False, 15_706_484_224),
        ("deepseek2", R1, 129280, False, 671_026_404_352),
    ],
    ids=["SmolLM2-135M", "Qwen3-30B-A3B", "OLMoE-1B-7B", "DeepSeek-V2-Lite", "DeepSeek-R1"],
)
def test_published_models(architecture, metadata, rows, tied, parameters):
    config = model_of(architecture, metadata, rows=rows, tensors=() if tied else ("output.weight",))
    assert config.tie_embeddings == tied
    assert Accounting.of(config).total_parameters == parameters


def test_numbers_are_the_decimals_that_were_meant():
    assert model_of("llama", SMOLLM2, rows=49152).norm_eps == 1e-5
    assert model_of("deepseek2", V2_LITE, rows=102400).rope_scaling == YarnConfig(
        factor=40.0, original_max_positions=4096, mscale=0.707, mscale_all_dim=0.707
    )


def test_latent_attention_and_routing():
    lite, r1 = model_of("deepseek2", V2_LITE, rows=102400), model_of("deepseek2", R1, rows=129280)
    assert (lite.attention.nope_dim, lite.attention.rope_dim, lite.attention.v_dim) == (128, 64, 128)
    assert (r1.attention.nope_dim, r1.attention.rope_dim, r1.attention.v_dim) == (128, 64, 128)
    assert (lite.attention.q_rank, r1.attention.q_rank) == (None, 1536)
    assert (lite.moe.scoring, lite.moe.groups, lite.moe.normalize_gates) == ("softmax", 1, False)
    assert (r1.moe.scoring, r1.moe.groups, r1.moe.groups_per_token) == ("sigmoid", 8, 4)
    assert (r1.moe.routed_scale, r1.moe.normalize_gates) == (2.5, True)
    assert r1.rope_scaling == YarnConfig(factor=40.0, original_max_positions=4096, mscale=1.0, mscale_all_dim=1.0)


def test_layers_of_multi_token_prediction():
    """They count as blocks, and may have been left out."""
    metadata = R1 | {"block_count": 62, "nextn_predict_layers": 1}
    present = model_of("deepseek2", metadata, rows=129280, tensors=["blk.61.nextn.eh_proj.weight"])
    assert (present.layers, present.mtp_layers) == (61, 1)
    absent = model_of("deepseek2", metadata, rows=129280)
    assert (absent.layers, absent.mtp_layers) == (61, 0)


@pytest.mark.parametrize(("architecture", "metadata"), [("deepseek2", R1), ("qwen3moe", QWEN3_30B), ("olmoe", OLMOE)])
def test_metadata_returns(architecture, metadata):
    """But for the rotation, which is written from our own config."""
    values = to_hugging_face(model_of(architecture, metadata, rows=1000, tensors=["output.weight"]))
    written = metadata_of(values)
    wanted = {key: value for key, value in metadata.items() if not key.startswith("rope.freq") and "scaling" not in key}
    assert {key: written[key] for key in wanted if key in written} == {
        key: pytest.approx(value) for key, value in wanted.items()
    }
    assert not wanted.keys() - written.keys()


def test_a_window_bounds_the_context():
    """llama.cpp has none; within it there is no difference."""
    config = model_of("llama", SMOLLM2, rows=49152)
    attention = config.attention.model_copy(update={"sliding_window": 1024})
    values = to_hugging_face(config.model_copy(update={"attention": attention}))
    assert metadata_of(values)["context_length"] == 1024


def test_groups_that_choose_nothing_are_not_written():
    values = to_hugging_face(model_of("deepseek2", R1, rows=1000)) | {"topk_group": 8}
    assert not [key for key in metadata_of(values) if "group" in key]


def test_layer_numbers_that_decide_in_llama_cpp():
    assert is_lite(27, 102400)
    assert is_lite(26, 1000)
    assert is_lite(48, 128256)
    assert not is_lite(48, 1000)
    assert not is_lite(4, 102400)
    values = to_hugging_face(model_of("deepseek2", R1 | {"block_count": 27}, rows=1000))
    with pytest.raises(CheckpointError, match=r"a deepseek2 of 27 layers for a DeepSeek-V2-Lite, .* has one of 1536"):
        metadata_of(values)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ((QWEN3_30B, "qwen3moe"), {"norm_topk_prob": False}, "knows qwen3moe with norm_topk_prob True only"),
        ((QWEN3_30B, "qwen3moe"), {"mlp_only_layers": [0]}, "knows qwen3moe with experts in every layer only"),
        ((OLMOE, "olmoe"), {"norm_topk_prob": True}, "knows olmoe with norm_topk_prob False only"),
        ((OLMOE, "olmoe"), {"num_key_value_heads": 8}, "knows olmoe with as many key heads as query heads only"),
        ((OLMOE, "olmoe"), {"head_dim": 64}, r"knows olmoe with heads of width / heads \(2048 / 16\) only, .* of 64"),
    ],
)
def test_models_that_llama_cpp_would_compute_otherwise(model, changes, message):
    metadata, architecture = model
    values = to_hugging_face(model_of(architecture, metadata, rows=1000)) | changes
    with pytest.raises(CheckpointError, match=message):
        metadata_of(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "gpt2"}, "general.architecture 'gpt2' is not supported"),
        ({"general.architecture": 3}, "general.architecture should be a name, got 3"),
        ({"general.architecture": None}, "key general.architecture is missing"),
        ({"general.type": "adapter"}, "general.type is 'adapter', expected a model"),
        ({"general.type": ["model"]}, r"general.type should be a string, got \['model'\]"),
        ({"split.count": 3}, "split.count says that this is one of several parts"),
        ({"llama.block_count": None}, "key llama.block_count is missing"),
        ({"llama.block_count": "thirty"}, "llama.block_count should be a whole number, got thirty"),
        ({"llama.block_count": True}, "llama.block_count should be a whole number, got True"),
        ({"llama.block_count": -1}, "llama.block_count should be a whole number, got -1"),
        ({"llama.block_count": 0}, "layers: should be greater than 0, got 0"),
        ({"llama.attention.head_count": [9, 8]}, r"head_count should be a whole number, got \[9, 8\]"),
        ({"llama.attention.head_count": 0}, "expected that of a whole key, 576"),
        ({"llama.attention.head_count": []}, r"head_count should be a whole number, got \[\]"),
        ({"llama.attention.layer_norm_rms_epsilon": "small"}, "epsilon should be a finite number, got small"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "epsilon should be a finite number, got nan"),
        ({"llama.rope.freq_base": 1e300}, "freq_base should be a finite number, got 1e.300"),
        ({"llama.rope.freq_base": float("inf")}, "freq_base should be a finite number, got inf"),
        ({"llama.rope.dimension_count": 32}, "rope.dimension_count is 32, expected that of a whole key, 64"),
        ({"llama.attention.value_length": 32}, "attention.value_length is 32, expected that of a whole key, 64"),
        ({"llama.rope.scaling.type": "longrope"}, "rope.scaling.type is 'longrope', which is not supported"),
        ({"llama.rope.scaling.type": 3}, "rope.scaling.type should be a string, got 3"),
    ],
)
def test_metadata_that_cannot_be(changes, message):
    file = file_of("llama", SMOLLM2, rows=49152)
    metadata = {key: value for key, value in (dict(file.metadata) | changes).items() if value is not None}
    with pytest.raises(CheckpointError, match=rf"model.gguf: .*{message}"):
        from_hugging_face(config_of(GGUFFile(file.path, metadata, file.tensors, file.data)), "model.gguf")


def test_no_embedding():
    with pytest.raises(CheckpointError, match=r"model.gguf: tensor token_embd.weight is missing"):
        model_of("llama", SMOLLM2)


def test_one_number_for_each_layer():
    assert model_of("llama", SMOLLM2 | {"attention.head_count": [9] * 30}, rows=49152).attention.heads == 9
