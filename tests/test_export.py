"""`octavo export`: what it writes, and that its own check can fail."""

import json
import math
from pathlib import Path

import pytest
import torch

from octavo import export as exporting
from octavo.cli import exit_code_of
from octavo.errors import ConfigError, ExportError
from octavo.export import export, perplexity, round_weights, text_logits
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import save_model
from octavo.weights.open import open_model

GQA = {"attention": {"kind": "gqa", "heads": 2, "kv_heads": 1, "qkv_bias": True}, "tie_embeddings": True}
MLA = {
    "attention": {"kind": "mla", "heads": 2, "kv_rank": 32, "nope_dim": 16, "rope_dim": 16, "v_dim": 16},
    "moe": {"experts": 4, "experts_per_token": 2, "expert_width": 32},
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["A press lays down one sheet at a time. What is 17 + 25?"], 300)


def build(shape: dict, vocab_size: int) -> Transformer:
    torch.manual_seed(0)
    common = {"vocab_size": vocab_size, "width": 32, "layers": 2, "ffn_width": 32, "max_positions": 64, "init_std": 0.3}
    return Transformer(ModelConfig.parse(common | shape)).eval()


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Model folders, one dense and one sparse."""
    found = {}
    for name, shape in (("dense", GQA), ("sparse", MLA)):
        found[name] = tmp_path_factory.mktemp("models") / name
        save_model(found[name], build(shape, tokenizer.vocab_size), tokenizer)
    return found


@pytest.mark.parametrize("name", ["dense", "sparse"])
@pytest.mark.parametrize(
    ("to", "kind"),
    [("hf", "float32"), ("hf", "bfloat16"), ("hf", "float16"), ("gguf", "F32"), ("gguf", "F16"), ("gguf", "BF16")],
)
def test_floating_point_forms_answer_as_the_rounded_original(folders, tmp_path, name, to, kind):
    out = tmp_path / ("out.gguf" if to == "gguf" else "out")
    exported = export(folders[name], to, out, kind)
    assert (exported.path, exported.kind, exported.tokens) == (out, kind, 64)
    if kind in ("F32", "float32"):
        assert exported.greatest_difference < 1e-4
        assert exported.perplexity_ratio == pytest.approx(1, abs=1e-6)
    else:
        # Rounding shows, so the comparison with the unrounded original would have failed.
        assert exported.greatest_difference > 1e-3


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantized_forms_are_judged_by_perplexity(folders, tmp_path, kind):
    exported = export(folders["dense"], "gguf", tmp_path / "x.gguf", kind)
    assert exported.greatest_difference > 1e-3
    assert exported.perplexity_ratio == pytest.approx(1, abs=0.02 if kind == "Q8_0" else 0.5)
    assert exported.bytes == (tmp_path / "x.gguf").stat().st_size


def test_from_gguf_back_to_a_folder(folders, tmp_path):
    export(folders["dense"], "gguf", tmp_path / "x.gguf", "F32")
    export(tmp_path / "x.gguf", "hf", tmp_path / "back", "float32")
    first, second = (open_model(path)[0].state_dict() for path in (folders["dense"], tmp_path / "back"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_transposed_matrix_does_not_pass(folders, tmp_path, monkeypatch, kind):
    def save(folder, model, tokenizer, dtype):
        copy = Transformer(model.config)
        copy.load_state_dict(model.state_dict())
        weight = copy.layers[0].attention.o.weight
        with torch.no_grad():
            weight.copy_(weight.T.clone())
        save_model(folder, copy, tokenizer, dtype)

    monkeypatch.setattr(exporting, "save_model", save)
    with pytest.raises(ExportError, match=r"its logits differ by .*at most 0.001 was expected; the files are kept"):
        export(folders["dense"], "hf", tmp_path / "out", kind)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert ExportError.exit_code == 1


def test_a_ruined_quantized_form_does_not_pass(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "perplexity", lambda logits, ids, seen=[3.0, 3.0, 1.0]: seen.pop(0))
    with pytest.raises(ExportError, match="its perplexity is 3 times the original's"):
        export(folders["dense"], "gguf", tmp_path / "x.gguf", "Q4_0")


def test_another_tokenizer_does_not_pass(folders, tmp_path, monkeypatch, tokenizer):
    other = Tokenizer.train(["completely different words here"], tokenizer.vocab_size)
    monkeypatch.setattr(exporting, "save_model", lambda out, model, _, dtype: save_model(out, model, other, dtype))
    with pytest.raises(ExportError, match="its tokenizer cuts a text differently"):
        export(folders["dense"], "hf", tmp_path / "out", "float32")


def test_perplexity_by_hand():
    logits_TV = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [9.0, 9.0]])
    # Token 1 has probability 3/4, then token 0 has 1/2: exp(-(ln 3/4 + ln 1/2) / 2) = sqrt(8/3)
    assert perplexity(logits_TV, [0, 1, 0]) == pytest.approx(math.sqrt(8 / 3))


def test_what_is_rounded():
    model = build(MLA, 280)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 1 / 3)
    round_weights(model, torch.bfloat16, vectors=False)
    third = torch.tensor(1 / 3)
    for name, parameter in model.named_parameters():
        kept = parameter.ndim == 1 or name.endswith("router.weight")
        assert torch.all(parameter == (third if kept else third.bfloat16().float())), name
    round_weights(model, torch.bfloat16, vectors=True)
    assert all(torch.all(parameter == third.bfloat16().float()) for parameter in model.parameters())


def test_logits_are_those_of_one_document(folders):
    model, _ = open_model(folders["dense"])
    ids = [5, 6, 7]
    assert text_logits(model, ids).shape == (3, model.config.vocab_size)
    torch.testing.assert_close(text_logits(model, ids)[:2], text_logits(model, ids[:2]))


@pytest.mark.parametrize(
    ("to", "out", "kind", "force", "said"),
    [
        ("gguf", "x.gguf", "Q3_K", False, r"'Q3_K' is no kind of gguf weights \(known: F32, F16"),
        ("hf", "x", "int8", False, "no kind of hf weights"),
        ("gguf", "x.bin", "F32", False, "ends in .gguf"),
        ("hf", "full", "float32", False, "exists; --force overwrites it"),
        ("gguf", "there.gguf", "F32", False, "exists; --force overwrites it"),
        ("hf", "full", "float32", True, "is no model folder, and only such a one is overwritten"),
        ("hf", "there.gguf", "float32", True, "is no model folder"),
        ("gguf", "folder.gguf", "F32", True, "is a folder"),
        ("hf", "MODEL", "float32", True, "is, or holds, the model that is to be exported"),
        ("hf", "MODEL/..", "float32", True, "is, or holds, the model that is to be exported"),
    ],
)
def test_what_may_not_be_written(folders, tmp_path, to, out, kind, force, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    (tmp_path / "there.gguf").write_text("mine")
    (tmp_path / "folder.gguf").mkdir()
    path = Path(out.replace("MODEL", str(folders["dense"]))) if "MODEL" in out else tmp_path / out
    with pytest.raises(ConfigError, match=said):
        export(folders["dense"], to, path, kind, force)
    assert (tmp_path / "full/thesis.txt").read_text() == (tmp_path / "there.gguf").read_text() == "mine"


def test_force_overwrites_a_model(folders, tmp_path):
    for _ in range(2):
        export(folders["dense"], "hf", tmp_path / "out", "float32", force=True)
    (tmp_path / "empty").mkdir()
    export(folders["dense"], "hf", tmp_path / "empty", "float32", force=True)


def test_the_command(folders, tmp_path, capsys):
    command = ["export", str(folders["dense"]), "--to", "gguf", "--out"]
    assert exit_code_of([*command, str(tmp_path / "a.gguf"), "--quantize", "q8_0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["tokens"], said["path"]) == ("Q8_0", 64, str(tmp_path / "a.gguf"))
    assert 0.9 < said["perplexity_ratio"] < 1.1
    assert exit_code_of([*command, str(tmp_path / "b.gguf")]) == 0
    assert "Read back and compared over 64 tokens: logits differ by at most" in capsys.readouterr().out
    for more in (["--dtype", "float16"], ["--to", "hf", "--quantize", "Q8_0"]):
        assert exit_code_of([*command, str(tmp_path / "c.gguf"), *more]) == 2
        assert "chosen with --" in capsys.readouterr().err
