"""MODEL on the disk -> model and tokenizer; everything else refused with its reason, and nothing executed."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from octavo.errors import CheckpointError
from octavo.model.quantize import is_quantized
from octavo.weights.gguf import write_gguf
from octavo.weights.hf import save_model
from octavo.weights.open import open_model


@pytest.fixture
def folder(model_of, tokenizer, tmp_path):
    save_model(tmp_path / "model", model_of("qwen2"), tokenizer)
    return tmp_path / "model"


def refused(path, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


def test_a_folder(folder, model_of, tokenizer):
    model, opened = open_model(folder)
    assert model.config == model_of("qwen2").config
    assert torch.equal(model.embed.weight, model_of("qwen2").embed.weight)
    assert opened.encode("How much is 2 + 2?") == tokenizer.encode("How much is 2 + 2?")


def test_a_gguf_file(tmp_path, model_of, tokenizer):
    write_gguf(tmp_path / "model.gguf", model_of("qwen2"), tokenizer, "F32")
    model, opened = open_model(tmp_path / "model.gguf")
    assert torch.equal(model.embed.weight, model_of("qwen2").embed.weight)
    assert opened.encode("How much is 2 + 2?") == tokenizer.encode("How much is 2 + 2?")
    (tmp_path / "model.gguf").write_bytes(b"PK" + bytes(100))
    refused(tmp_path / "model.gguf", "model.gguf: ")


def test_opened_for_inference_in_eight_bits(folder, model_of):
    model, _ = open_model(folder, "int8")
    assert is_quantized(model)
    torch.testing.assert_close(model.embed.weight, model_of("qwen2").embed.weight, rtol=0.02, atol=0.01)


class _Bomb:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickles_are_refused_unopened(folder, tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(_Bomb(tmp_path / "executed")))
    refused(tmp_path / name, rf"{name}: pickled weights are refused, because opening them can run code; convert them")
    (folder / "model.safetensors").unlink()
    (tmp_path / name).rename(folder / name)
    refused(folder, rf"model/{name}: pickled weights are refused, because opening them can run code; convert them")
    (folder / name).rename(folder / "model.safetensors")
    refused(folder, r"model/model.safetensors: cannot be read as safetensors: ")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "executed"))).close()
    assert (tmp_path / "executed").exists()


def test_pickles_beside_safetensors_do_not_matter(folder):
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    open_model(folder)


def test_other_paths(tmp_path):
    refused(tmp_path / "nowhere", "nowhere: no such file or folder; expected a Hugging Face model folder or a .gg")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "notes.txt: expected a Hugging Face model folder or a .gguf file")
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors", "model.safetensors: weights alone; give the folder that holds config.json")


def test_a_tokenizer_of_another_model(folder, model_of, tokenizer):
    """Its ids would lie outside the embedding."""
    small = type(model_of("llama").config).parse(model_of("llama").config.dump() | {"vocab_size": 270})
    save_model(folder, type(model_of("llama"))(small), tokenizer)
    refused(folder, f"model: the tokenizer has {tokenizer.vocab_size} tokens, the model knows 270; they do not")
