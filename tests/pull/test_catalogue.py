"""Names, and what the catalogue says of them, against the architectures that their makers published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import ConfigError
from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.pull import DEFAULT
from octavo.pull.cache import gigabytes
from octavo.pull.catalogue import Reference, catalogue, look_up
from octavo.weights.hf_config import from_hugging_face


def config(kind: str, vocab: int, width: int, layers: int, ffn: int, heads: int, kv_heads: int, **more) -> ModelConfig:
    """Of the published config.json what decides the shape."""
    values = {
        "model_type": kind, "vocab_size": vocab, "hidden_size": width, "num_hidden_layers": layers,
        "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
    }  # fmt: skip
    return from_hugging_face(values | more, kind)


TIED = {"tie_word_embeddings": True}
V2_LITE = {
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "routed_scaling_factor": 1.0, "norm_topk_prob": False, "topk_method": "greedy",
    "scoring_func": "softmax", "n_group": 1, "topk_group": 1, "moe_layer_freq": 1,
}  # fmt: skip
QWEN3_MOE = {
    "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
SHAPES = {
    "smollm2-135m": config("llama", 49152, 576, 30, 1536, 9, 3, **TIED),
    "qwen2.5-0.5b": config("qwen2", 151936, 896, 24, 4864, 14, 2, **TIED),
    "qwen2.5-1.5b": config("qwen2", 151936, 1536, 28, 8960, 12, 2, **TIED),
    "qwen2.5-3b": config("qwen2", 151936, 2048, 36, 11008, 16, 2, **TIED),
    "qwen2.5-7b": config("qwen2", 152064, 3584, 28, 18944, 28, 4),
    "qwen3-0.6b": config("qwen3", 151936, 1024, 28, 3072, 16, 8, head_dim=128, **TIED),
    "qwen3-1.7b": config("qwen3", 151936, 2048, 28, 6144, 16, 8, head_dim=128, **TIED),
    "qwen3-4b": config("qwen3", 151936, 2560, 36, 9728, 32, 8, head_dim=128, **TIED),
    "qwen3-8b": config("qwen3", 151936, 4096, 36, 12288, 32, 8, head_dim=128),
    "qwen3-30b-a3b": config("qwen3_moe", 151936, 2048, 48, 6144, 32, 4, **QWEN3_MOE),
    "r1-distill-qwen-1.5b": config("qwen2", 151936, 1536, 28, 8960, 12, 2),
    "r1-distill-qwen-7b": config("qwen2", 152064, 3584, 28, 18944, 28, 4),
    "olmoe-1b-7b": config("olmoe", 50304, 2048, 16, 1024, 16, 16, num_experts=64, num_experts_per_tok=8),
    "deepseek-v2-lite": config("deepseek_v2", 102400, 2048, 27, 10944, 16, 16, **V2_LITE),
}


def test_every_model_has_a_shape_here():
    assert SHAPES.keys() == catalogue().keys()


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_published_shape(name):
    assert catalogue()[name].parameters == Accounting.of(SHAPES[name]).total_parameters


def test_downloads_are_two_bytes_a_parameter_and_a_tokenizer():
    for name, entry in catalogue().items():
        weights = 2 * entry.parameters
        if name in ("qwen3-0.6b", "qwen3-1.7b"):  # published with the tied head once more
            weights += 2 * SHAPES[name].vocab_size * SHAPES[name].width
        assert 1e6 < entry.download_bytes - weights < 2e7, name


def test_memory_is_four_bytes_a_parameter():
    assert catalogue()["smollm2-135m"].memory_bytes == 538_060_032


def test_short_names_and_hub_names_mean_the_same():
    reference, entry = look_up(DEFAULT)
    assert reference == Reference("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert look_up("HuggingFaceTB/SmolLM2-135M-Instruct") == (reference, entry)
    assert look_up(DEFAULT, "v1") == (Reference("HuggingFaceTB/SmolLM2-135M-Instruct", "v1"), None)
    assert look_up("a/b@v1:c.gguf", "v2")[0] == Reference("a/b", "v2", "c.gguf")


def test_an_unknown_short_name_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"no model is named 'qwen3-8' \(did you mean qwen3-8b\?\)"):
        look_up("qwen3-8")


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,6}", fullmatch=True)


@given(NAMES, NAMES, st.one_of(st.just("main"), NAMES), st.one_of(st.none(), NAMES.map(lambda name: f"{name}.gguf")))
def test_a_reference_reads_as_it_is_written_and_names_one_folder(owner, name, revision, file):
    reference = Reference(f"{owner}/{name}", revision, file)
    assert Reference.parse(str(reference)) == reference
    assert "/" not in reference.slug
    assert reference.slug not in (".", "..")


@given(st.text(max_size=30))
def test_whatever_is_typed_is_a_name_or_an_error_of_one_line(text):
    try:
        reference, _ = look_up(text)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert "/" not in reference.slug


@pytest.mark.parametrize(
    ("count", "said"),
    [(98_362_432, "98 MB"), (271_000_000, "0.27 GB"), (15_238_000_000, "15.2 GB"), (258_000, "0.3 MB")],
)
def test_gigabytes(count, said):
    assert gigabytes(count) == said
