"""Folders that are not whole: one line that names the file, and the tensor where it is one."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from octavo.errors import CheckpointError
from octavo.weights.hf import load_model, load_tokenizer, save_model


@pytest.fixture(scope="module")
def whole_folder(model_of, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    save_model(folder, model_of("deepseek_v3, two mtp layers"), tokenizer)
    return folder


@pytest.fixture
def folder(whole_folder, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(whole_folder, tmp_path / "model")


def refused(folder, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder, change, name="model.safetensors"):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "model/config.json: no such file; expected a model folder"),
        ("model.safetensors", "model/model.safetensors: no such file, nor model.safetensors.index.json; expected"),
        ("mtp.safetensors", r"model.safetensors: model.layers.2.eh_proj.weight is missing .*set num_nextn_predict_lay"),
    ],
)
def test_a_missing_file(folder, name, message):
    (folder / name).unlink()
    refused(folder, message)


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", r"nowhere/config.json: no such file; expected a model folder")
    with pytest.raises(CheckpointError, match=r"nowhere/tokenizer.json: no such file"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.999])
@pytest.mark.parametrize("name", ["model.safetensors", "mtp.safetensors"])
def test_a_truncated_file(folder, name, kept):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    refused(folder, rf"model/{name}: cannot be read as safetensors: ")


def test_another_file_in_its_place(folder):
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html><html>not found</html>" * 10)
    refused(folder, r"model/model.safetensors: cannot be read as safetensors: ")


def test_a_missing_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.experts.3.up_proj.weight"))
    refused(folder, r"model.safetensors: model.layers.1.mlp.experts.3.up_proj.weight is missing \(1 missing, 0 unexp")


def test_an_unexpected_tensor(folder):
    change_tensors(folder, lambda tensors: tensors.update(extra=torch.zeros(2)))
    refused(folder, r"model.safetensors: extra is not part of the config's model \(0 missing, 1 unexpected tensors\)")


def test_a_tensor_of_another_shape(folder):
    name = "model.layers.0.self_attn.o_proj.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].T.contiguous()}))
    refused(folder, rf"model.safetensors: {name} has shape \(12, 16\), the config says \(16, 12\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.safetensors", "model.layers.1.mlp.experts.5.down_proj.weight"),
        ("model.safetensors", "model.norm.weight"),
        ("mtp.safetensors", "model.layers.3.mlp.gate.e_score_correction_bias"),
    ],
)
def test_a_tensor_that_is_not_finite(folder, file, name, value):
    change_tensors(folder, lambda tensors: tensors[name].view(-1)[-1].fill_(value), file)
    refused(folder, rf"{file}: {name} holds NaN or infinity")


def test_a_tensor_in_both_files(folder):
    change_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16)}), "mtp.safetensors")
    refused(folder, r"model/mtp.safetensors: model.norm.weight lies in model.safetensors already; remove one")


def test_quantized_weights_are_refused_by_name(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, r"model/config.json: weights quantized with 'gptq' are not supported; expected FP8 in")


def test_weights_of_integers(folder):
    name = "model.layers.0.mlp.down_proj.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    refused(folder, rf"model.safetensors: {name} is of type I8, expected one of F32, F16, BF16, F8_E4M3")


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size", "n_routed_experts", "num_nextn_predict_layers"])
def test_a_small_file_that_asks_for_terabytes(folder, key, monkeypatch):
    """Refused before memory is taken."""
    monkeypatch.setattr("octavo.weights.fill.Transformer.empty", lambda config: pytest.fail("memory was taken"))
    change_config(folder, **{key: 10**11})
    refused(folder, r"model.safetensors: (.* tensors, too few for the|holds .* parameters, the config)")


def test_config_and_weights_that_do_not_fit(folder):
    change_config(folder, hidden_size=32)
    refused(folder, r"model.safetensors: .* has shape \(.*\), the config says \(.*\)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a model config in JSON"),
        ("{'model_type': 'llama'}", "expected a model config in JSON"),
        ("[1, 2]", "expected a model config, a JSON object, got list"),
        ("\udcff".encode("utf-8", "surrogateescape"), "expected a model config in JSON: 'utf-8' codec can't decode"),
        ("[" * 100_000, "expected a model config in JSON: maximum recursion depth exceeded"),
        ("{}", "model_type None is not supported"),
        ('{"model_type": "gpt2"}', r"model_type 'gpt2' is not supported \(known: deepseek_v2, "),
        ('{"model_type": ["llama"]}', r"model_type \['llama'\] is not supported"),
        ('{"model_type": "llama"}', "vocab_size is missing"),
    ],
)
def test_a_config_that_cannot_be_read(folder, text, message):
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(folder, rf"model/config.json: {message}")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": "two"}, "layers: should be a valid integer, got 'two'"),
        ({"num_hidden_layers": 0}, "layers: should be greater than 0, got 0"),
        ({"num_experts_per_tok": 99}, r"moe: experts_per_token \(99\) exceeds experts \(6\)"),
        ({"rope_theta": None}, "rope_theta: should be a valid number, got None"),
        ({"rope_scaling": "yarn"}, "the rotary parameters should be a group of keys, got 'yarn'"),
        (
            {"rope_scaling": {"rope_type": "dynamic"}},
            r"rope scaling 'dynamic' is not supported \(known: default, linear",
        ),
        ({"rope_scaling": {"type": "yarn"}}, "factor is missing"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 2.0}},
            "mscale and mscale_all_dim must be set together, or neither",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu' is supported"),
        ({"attention_bias": True}, "attention_bias is True, and only False is supported"),
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax', and only 'sigmoid' is supported"),
        ({"rope_interleave": False}, "rope_interleave is False, and only True is supported"),
    ],
)
def test_a_config_that_cannot_be_built(folder, values, message):
    change_config(folder, **values)
    refused(folder, rf"model/config.json: .*{message}")
