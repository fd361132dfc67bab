"""Whatever bytes a file holds, opening it ends soon, in a table or in one line of CheckpointError."""

import tracemalloc

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.errors import CheckpointError
from octavo.weights.gguf.source import GGUFSource
from octavo.weights.hf_config import from_hugging_face

_QUICK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


_COMMON = {
    "block_count": 1,
    "context_length": 64,
    "embedding_length": 4,
    "feed_forward_length": 8,
    "attention.head_count": [2, 2],
    "attention.layer_norm_rms_epsilon": 1e-6,
}
_LATENT = {
    "attention.kv_lora_rank": 4,
    "attention.key_length_mla": 6,
    "attention.value_length_mla": 4,
    "rope.dimension_count": 2,
    "expert_feed_forward_length": 4,
    "expert_count": 2,
    "expert_used_count": 1,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
}
_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16}
# Files that have most of the rules for names, shapes and keys between them: architecture, metadata, shapes of tensors.
_FILES = {
    "deepseek2": (_COMMON | _LATENT, {"attn_k_b": (2, 4, 4), "attn_v_b": (2, 4, 4), "ffn_gate_exps": (2, 4, 4)}),
    "llama": (
        _COMMON | {"embedding_length": 8, "rope.freq_base": 1e8},
        {"attn_q": (8, 8), "ffn_gate_up_exps": (2, 4, 8)},
    ),
    "qwen2": (_COMMON | _YARN, {"attn_q": (4, 4)}),
}


@pytest.fixture(scope="module", params=_FILES)
def whole(request, tmp_path_factory):
    metadata, shapes = _FILES[request.param]
    path = tmp_path_factory.mktemp("fuzz") / "model.gguf"
    writer = GGUFWriter(path, request.param)
    for key, value in metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
        add[type(value)](f"{request.param}.{key}", value)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "c"])
    tensors = {f"blk.0.{name}.weight": np.ones(shape) for name, shape in shapes.items()}
    if request.param == "llama":
        tensors["rope_freqs.weight"] = np.array([1.0, 8.0])
    for name, values in ({"token_embd.weight": np.ones((3, metadata["embedding_length"]))} | tensors).items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def attempt(path, content: bytes) -> None:
    """Read all of it: whatever is raised but a CheckpointError is a failure, and so is much memory."""
    path.write_bytes(content)
    tracemalloc.start()
    message = f"{path}: read"
    try:
        with GGUFSource(path) as source:
            for name in source.names():
                source.shape(name)
                source.read(name)
            from_hugging_face(source.config, str(path))
    except CheckpointError as error:
        message = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 1000
    assert peak < 10_000_000


def test_the_file_itself_opens(whole, tmp_path):
    attempt(tmp_path / "copy.gguf", whole.read_bytes())
    with GGUFSource(whole) as source:
        assert source.shape("model.embed_tokens.weight")[0] == 3


@_QUICK
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(whole, tmp_path, changes):
    content = bytearray(whole.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    attempt(tmp_path / "changed.gguf", bytes(content))


@_QUICK
@given(
    place=st.integers(0, 10**6),
    value=st.sampled_from([2**63, 2**64 - 1, 2**32, 2**31, 10**12, 0]),
    size=st.sampled_from([4, 8]),
)
def test_numbers_at_the_edges(whole, tmp_path, place, value, size):
    """Where a length or a count stands, an extreme one."""
    content = bytearray(whole.read_bytes())
    place %= len(content) - 8
    content[place : place + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
    attempt(tmp_path / "changed.gguf", bytes(content))


@_QUICK
@given(start=st.integers(0, 10**6), length=st.integers(0, 200))
def test_bytes_left_out(whole, tmp_path, start, length):
    content = whole.read_bytes()
    start %= len(content)
    attempt(tmp_path / "changed.gguf", content[:start] + content[start + length :])


@_QUICK
@given(noise=st.binary(max_size=400), version=st.sampled_from([2, 3]))
def test_noise_behind_the_magic(tmp_path, noise, version):
    attempt(tmp_path / "noise.gguf", b"GGUF" + version.to_bytes(4, "little") + noise)
