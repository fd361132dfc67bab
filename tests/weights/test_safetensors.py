"""Folders as others publish them: shards, MTP layers among the main ones, FP8 blocks; and damage to a file's header."""

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from octavo.errors import CheckpointError
from octavo.weights.fp8 import dequantize, scale_shape
from octavo.weights.hf import load_model, save_model
from octavo.weights.names import hugging_face_views
from octavo.weights.safetensors import SafetensorsSource

FP8_BLOCK = (8, 8)


def write_shards(folder, tensors, shards=3):
    """Tensors dealt out to `shards` files, with an index."""
    index = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in sorted(set(index.values())):
        save_file({name: tensors[name] for name in index if index[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def as_released(model, folder, tokenizer):
    """DeepSeek's own layout: shards that hold the MTP layers too, which repeat embedding and head; FP8 matrices.

    Returns the tensors that reading should give.
    """
    save_model(folder, model, tokenizer)
    main, mtp = hugging_face_views(model)
    expected, written = {}, {}
    for name, view in (main | mtp).items():
        is_projection = name.endswith("proj.weight") and "eh_proj" not in name
        if not is_projection or view.ndim != 2:
            expected[name] = view.to(torch.bfloat16).float()
            written[name] = view.to(torch.bfloat16).contiguous()
            continue
        scale = torch.rand(scale_shape(tuple(view.shape), FP8_BLOCK)) + 0.1
        weight = view.contiguous().to(torch.float8_e4m3fn)
        written[name], written[f"{name}_scale_inv"] = weight, scale
        expected[name] = dequantize(weight, scale, FP8_BLOCK)
    for depth in range(model.config.mtp_layers):
        prefix = f"model.layers.{model.config.layers + depth}"
        written[f"{prefix}.embed_tokens.weight"] = written["model.embed_tokens.weight"].clone()
        written[f"{prefix}.shared_head.head.weight"] = written["lm_head.weight"].clone()
    (folder / "model.safetensors").unlink()
    (folder / "mtp.safetensors").unlink()
    write_shards(folder, written)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(FP8_BLOCK)}
    (folder / "config.json").write_text(json.dumps(config))
    return expected


def test_weights_as_deepseek_releases_them(model_of, tokenizer, tmp_path):
    model = model_of("deepseek_v3, two mtp layers")
    expected = as_released(model, tmp_path / "model", tokenizer)
    assert any(name.startswith("model.layers.3.mlp.experts.5") for name in expected)
    main, mtp = hugging_face_views(load_model(tmp_path / "model"))
    found = main | mtp
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_source_of_shards(tmp_path):
    """Names, shapes and values; scales are no tensors of their own; float32 whatever is stored."""
    tensors = {
        "single": torch.tensor(1.5),
        "half": torch.tensor([1.0, 2.0], dtype=torch.float16),
        "quantized.weight": torch.tensor([[1.0, 2.0], [4.0, 8.0]]).to(torch.float8_e4m3fn),
        "quantized.weight_scale_inv": torch.tensor([[0.5]], dtype=torch.bfloat16),
        "other.weight": torch.ones(2, 2),
        "other.weight_scale_inv": torch.ones(1, 1),
        "empty": torch.zeros(0, 3),
    }
    write_shards(tmp_path, tensors, shards=2)
    with SafetensorsSource(tmp_path) as source:
        assert source.names() == tensors.keys() - {"quantized.weight_scale_inv"}
        assert shapes(tmp_path) == {name: tuple(tensors[name].shape) for name in source.names()}
        assert source.read("quantized.weight").tolist() == [[0.5, 1.0], [2.0, 4.0]]
        assert source.read("half").tolist() == [1.0, 2.0]
        assert {source.read(name).dtype for name in source.names()} == {torch.float32}
        assert source.where == tmp_path / "model.safetensors.index.json"
        assert source.file("empty") == tmp_path / "model-00001-of-00002.safetensors"


def shapes(folder):
    with SafetensorsSource(folder) as source:
        return {name: source.shape(name) for name in source.names()}


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        shapes(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


# ---- index and shards


@pytest.fixture
def shards(tmp_path):
    write_shards(tmp_path, {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(4)})
    return tmp_path


def change_index(folder, **shard_of):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= shard_of
    path.write_text(json.dumps(index))


def test_a_missing_shard(shards):
    (shards / "model-00002-of-00003.safetensors").unlink()
    refused(shards, r"model-00002-of-00003.safetensors: no such file, though model.safetensors.index.json names it")


@pytest.mark.parametrize(
    "place", ["../secret.safetensors", "/etc/secret.safetensors", "x/y.safetensors", "..", "", ".", "model.npz"]
)
def test_a_shard_that_is_no_file_of_the_folder(shards, place):
    """Not even looked for."""
    save_file({"d": torch.ones(1)}, shards.parent / "secret.safetensors")
    change_index(shards, d=place)
    refused(shards, r"index.json: a shard should be a .safetensors file beside it, got '")


def test_pickled_shards(shards):
    change_index(shards, d="pytorch_model-00001-of-00002.bin")
    refused(shards, r"pytorch_model-00001-of-00002.bin: pickled weights are refused, because opening them can run code")


def test_a_tensor_in_two_shards(shards):
    save_file({"b": torch.ones(3), "a": torch.ones(2)}, shards / "model-00002-of-00003.safetensors")
    refused(shards, r"model-00002-of-00003.safetensors: a lies in model-00001-of-00003.safetensors already")


def test_a_tensor_that_its_shard_lacks(shards):
    change_index(shards, b="model-00003-of-00003.safetensors")
    refused(shards, r"index.json: b should lie in model-00003-of-00003.safetensors, which does not hold it")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000],
    ids=range(7),
)
def test_an_index_that_is_none(shards, text):
    (shards / "model.safetensors.index.json").write_text(text)
    refused(shards, r"model.safetensors.index.json: (expected an index of shards|weight_map should name the shard)")


def test_only_pickled_weights(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    refused(tmp_path, r"pytorch_model.bin: pickled weights are refused, because opening them can run code")


def test_no_weights_at_all(tmp_path):
    refused(tmp_path, r"model.safetensors: no such file, nor model.safetensors.index.json; expected a whole model")
    (tmp_path / "model.safetensors").mkdir()
    refused(tmp_path, r"model.safetensors: not a file; expected safetensors")


# ---- types


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.ones(2, dtype=torch.int8)}, "w is of type I8, expected one of F32, F16, BF16, F8_E4M3"),
        ({"w": torch.ones(2, dtype=torch.int32)}, "w is of type I32"),
        ({"w": torch.ones(2, dtype=torch.float64)}, "w is of type F64"),
        ({"w": torch.ones(2, 2).to(torch.float8_e5m2)}, "w is of type F8_E5M2"),
        ({"w": torch.ones(2, 2).to(torch.float8_e4m3fn)}, "w is FP8; expected a matrix, and its scales as w_scale_inv"),
        (
            {"w": torch.ones(2).to(torch.float8_e4m3fn), "w_scale_inv": torch.ones(1)},
            "w is FP8; expected a matrix, and its scales as w_scale_inv",
        ),
        (
            {"w": torch.ones(300, 2).to(torch.float8_e4m3fn), "w_scale_inv": torch.ones(2, 1)},
            r"w_scale_inv has shape \(2, 1\) and type F32, expected \(3, 1\) and F32 for blocks of \(128, 128\)",
        ),
        (
            {"w": torch.ones(2, 2).to(torch.float8_e4m3fn), "w_scale_inv": torch.ones(1, 1, dtype=torch.int32)},
            r"w_scale_inv has shape \(1, 1\) and type I32, expected \(1, 1\) and F32",
        ),
    ],
)
def test_types_that_cannot_be_read(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "model.safetensors")
    refused(tmp_path, rf"model.safetensors: {message}")


# ---- the file itself


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data_bytes", "message"),
    [
        ({"a": entry(0, 8)}, 7, "tensor a lies at bytes 0 to 8 of the data, of which the file has 7: truncated"),
        ({"a": entry(0, 8)}, 9, "1 bytes behind the last tensor belong to none"),
        ({"a": entry(0, 2**50, [2**48])}, 8, "tensor a lies at bytes 0 to 1,125,899,906,842,624 of the data, of which"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "tensor b lies at bytes 4 to 12 .* expected from 8: it overlaps"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "tensor b lies at bytes 0 to 8 .* expected from 8: it overlaps"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "tensor b lies at bytes 12 to 20 .* expected from 8: .* a gap"),
        ({"a": entry(0, 8, [3])}, 8, r"tensor a lies at bytes 0 to 8 of the data, but F32 of shape \[3\] has 12 bytes"),
        ({"a": entry(0, 8, [2**62, 2**62])}, 8, r"tensor a lies at bytes 0 to 8 .*, but F32 of shape \[46"),
        ({"a\n\x1b[2J": entry(4, 8, [1])}, 8, r"tensor a\\n\\x1b\[2J lies at bytes 4 to 8 .* a gap"),
        ({"a": entry(8, 0)}, 8, "tensor a lies at bytes 8 to 0 of the data, expected from 0"),
        ({"a": entry(-8, 0)}, 8, "tensor a lies at bytes -8 to 0 of the data, expected from 0"),
        ({"a": entry(0, 8, dtype="F99")}, 8, "unknown variant `F99`"),
        ({"a": {}}, 8, "missing field"),
        ([], 8, "invalid type: sequence"),
    ],
)
def test_a_header_that_lies(tmp_path, header, data_bytes, message):
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data_bytes))
    refused(tmp_path, rf"model.safetensors: cannot be read as safetensors: .*{message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "of 0 bytes it should have a header of 0: truncated, or another format"),
        (b"\1\0", "of 2 bytes it should have a header of 1: truncated"),
        (struct.pack("<Q", 2**42) + b"{}", "of 10 bytes it should have a header of 4,398,046,511,104: truncated"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "it should have a header of 18,446,744,073,709,551,615"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a pointer of Git LFS, not the"),
        (b"GGUF\3\0\0\0" + bytes(99), "of 107 bytes it should have a header of 14,064,895,815: truncated"),
        (b"PK\3\4" + bytes(99), "invalid JSON in header|it should have a header of 67,324,752"),
        (struct.pack("<Q", 50_000) + b"[" * 50_000, "invalid JSON in header"),
    ],
    ids=range(8),
)
def test_another_format(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path, rf"model.safetensors: cannot be read as safetensors: .*({message})")


def test_a_header_of_terabytes_in_a_file_of_terabytes(tmp_path):
    """A file with holes, so that the size is real and the bytes are not."""
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", 2**42))
        file.truncate(2**42 + 2**20)
    refused(tmp_path, r"cannot be read as safetensors: .*header of 4,398,046,511,104")


# ---- fuzzing

TENSORS = {
    "model.norm.weight": torch.arange(3.0),
    "model.layers.0.w": torch.arange(6.0).view(2, 3) / 8,
    "half": torch.arange(4).to(torch.bfloat16),
}


def read_all(folder) -> dict[str, torch.Tensor] | str:
    """All tensors, or why not."""
    try:
        with SafetensorsSource(folder) as source:
            assert all(source.shape(name) == tuple(source.read(name).shape) for name in source.names())
            return {name: source.read(name) for name in source.names()}
    except CheckpointError as error:
        return str(error)


def is_refusal(found) -> bool:
    return isinstance(found, str) and "model.safetensors: " in found and "\n" not in found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_file(TENSORS, folder / "whole.safetensors", metadata={"format": "pt"})
    return folder, (folder / "whole.safetensors").read_bytes()


fuzzed = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(st.data())
def test_changed_bytes_of_the_header_are_refused_or_harmless(tiny, data):
    """Names and the cut into rows may change (what does not fit the model is refused when it is filled), not values."""
    folder, whole = tiny
    header_end = 8 + int.from_bytes(whole[:8], "little")
    flips = data.draw(st.dictionaries(st.integers(0, header_end - 1), st.integers(0, 255), min_size=1, max_size=3))
    changed = bytearray(whole)
    for place, value in flips.items():
        changed[place] = value
    (folder / "model.safetensors").write_bytes(changed)
    found = read_all(folder)
    if is_refusal(found):
        return
    values = sorted(tensor.flatten().tolist() for tensor in found.values())
    assert values == sorted(tensor.flatten().tolist() for tensor in TENSORS.values())


@fuzzed
@given(st.data())
def test_changed_bytes_of_the_data_change_one_value(tiny, data):
    folder, whole = tiny
    header_end = 8 + int.from_bytes(whole[:8], "little")
    place, value = data.draw(st.integers(header_end, len(whole) - 1)), data.draw(st.integers(0, 255))
    (folder / "model.safetensors").write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
    found = read_all(folder)
    assert found.keys() == TENSORS.keys()
    # As bits: NaN is not equal to itself, and 0 equal to -0.
    different = {name: found[name].view(torch.int32) != TENSORS[name].float().view(torch.int32) for name in TENSORS}
    assert sum(int(each.sum()) for each in different.values()) == (value != whole[place])


@fuzzed
@given(st.data())
def test_truncated_or_longer_files_are_refused(tiny, data):
    folder, whole = tiny
    kept = data.draw(st.integers(0, len(whole) - 1))
    changed = data.draw(st.sampled_from([whole[:kept], whole + whole[: kept + 1]]))
    (folder / "model.safetensors").write_bytes(changed)
    assert is_refusal(read_all(folder))


@fuzzed
@given(st.binary(max_size=200))
def test_any_bytes(tiny, content):
    folder, _ = tiny
    (folder / "model.safetensors").write_bytes(content)
    found = read_all(folder)
    assert found == {} or is_refusal(found)


# ---- writing


def test_shards_are_small_whole_and_indexed(model_of, tokenizer, tmp_path):
    model = model_of()
    save_model(tmp_path / "one", model, tokenizer)
    save_model(tmp_path / "many", model, tokenizer, shard_bytes=10_000)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    names = sorted(set(index["weight_map"].values()))
    assert len(names) > 3
    assert names == [f"model-{i:05}-of-{len(names):05}.safetensors" for i in range(1, len(names) + 1)]
    assert names == sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    together = {}
    for name in names:
        shard = load_file(tmp_path / "many" / name)
        assert set(shard) == {tensor for tensor, place in index["weight_map"].items() if place == name}
        assert sum(tensor.nbytes for tensor in shard.values()) <= 10_000 or len(shard) == 1
        together |= shard
    whole = load_file(tmp_path / "one" / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], whole[name]) for name in whole)


def test_lower_precision_keeps_the_balance_bias_exact(model_of, tokenizer, tmp_path):
    model = model_of("deepseek_v3, two mtp layers")
    for dtype in (torch.bfloat16, torch.float16):
        save_model(tmp_path / "half", model, tokenizer, dtype=dtype)
        main, mtp = hugging_face_views(model)
        stored = load_file(tmp_path / "half" / "model.safetensors") | load_file(tmp_path / "half" / "mtp.safetensors")
        assert stored.keys() == (main | mtp).keys()
        for name, view in (main | mtp).items():
            exact = name.endswith("e_score_correction_bias")
            assert torch.equal(stored[name], view if exact else view.to(dtype)), name


def test_values_that_float16_cannot_hold_are_refused(model_of, tokenizer, tmp_path):
    model = model_of("llama")
    save_model(tmp_path / "model", model, tokenizer)
    with torch.no_grad():
        model.norm.weight[3] = -70_000
    with pytest.raises(CheckpointError, match=r"model.safetensors: model.norm.weight holds 7e\+04, more than"):
        save_model(tmp_path / "model", model, tokenizer, dtype=torch.float16)
    assert load_model(tmp_path / "model").norm.weight[3] != -70_000
    save_model(tmp_path / "model", model, tokenizer, dtype=torch.bfloat16)
    assert load_model(tmp_path / "model").norm.weight[3] == -70_144
