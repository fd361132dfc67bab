"""Model folders: back bit for bit, and opened by `transformers` as they are."""

import json
import logging

import pytest
import torch
import transformers
from safetensors import safe_open

from octavo.errors import CheckpointError, StorageError
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.messages import Message
from octavo.weights.hf import load_model, load_tokenizer, save_model

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.enable_propagation()  # so that caplog hears its warnings


def assert_same_model(first, second):
    assert first.config == second.config
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype == torch.float32
        assert torch.equal(tensor, theirs[name]), name


def test_saved_and_loaded_is_the_same(any_model, tokenizer, tmp_path):
    save_model(tmp_path / "model", any_model, tokenizer)
    loaded = load_model(tmp_path / "model").eval()
    assert_same_model(any_model, loaded)
    ids, positions = torch.randint(0, 280, (2, 9)), torch.arange(9).expand(2, 9)
    with torch.no_grad():
        hidden = any_model(ids, positions)
        assert torch.equal(loaded(ids, positions), hidden)
        for first, second in zip(
            any_model.mtp_hidden(hidden, ids, positions), loaded.mtp_hidden(hidden, ids, positions), strict=True
        ):
            assert torch.equal(first, second)


def test_a_loaded_model_trains(model_of, tokenizer, tmp_path):
    save_model(tmp_path / "model", model_of(), tokenizer)
    model = load_model(tmp_path / "model").train()
    model(torch.randint(0, 280, (1, 9)), torch.arange(9)[None]).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == ["head.weight"]
    assert model.routers()[0].take_load().sum() == 9 * 2


# torch says so of a shared expert of width 0.
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_transformers_opens_the_folder(any_model, tokenizer, tmp_path, caplog):
    """No missing and no unexpected key, no warning, the same logits."""
    save_model(tmp_path / "model", any_model, tokenizer)
    with caplog.at_level(logging.WARNING):
        peer, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    assert caplog.records == []
    assert peer.dtype == torch.float32
    ids, positions = torch.randint(0, 280, (2, 17)), torch.arange(17).expand(2, 17)
    with torch.no_grad():
        expected = peer.eval()(ids).logits
        torch.testing.assert_close(any_model.logits(any_model(ids, positions)), expected, rtol=0, atol=1e-4)


def test_transformers_generates_from_the_folder(model_of, tokenizer, tmp_path):
    """generation_config.json stops at our end tokens; greedy decoding gives what our model says."""
    model = model_of()
    save_model(tmp_path / "model", model, tokenizer)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert set(peer.generation_config.eos_token_id) == set(tokenizer.end_ids)
    assert peer.generation_config.pad_token_id == tokenizer.token_id("<|endoftext|>")
    prompt = torch.tensor([tokenizer.encode("How much")])
    settings = {"do_sample": False, "temperature": None, "top_p": None, "max_new_tokens": 8}
    found = peer.generate(prompt, attention_mask=torch.ones_like(prompt), **settings)
    ids = prompt
    while ids.shape[1] < prompt.shape[1] + 8 and int(ids[0, -1]) not in tokenizer.end_ids:
        with torch.no_grad():
            hidden = model(ids, torch.arange(ids.shape[1])[None])
        ids = torch.cat((ids, model.logits(hidden[:, -1:]).argmax(-1)), dim=1)
    assert found.tolist() == ids.tolist()


def test_transformers_opens_the_tokenizer(model_of, tokenizer, tmp_path):
    save_model(tmp_path / "model", model_of(), tokenizer)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "Two and 22 make <think>four</think>. Ünïcödé 数"
    assert peer.encode(text, add_special_tokens=False) == tokenizer.encode(text)
    loaded, question = load_tokenizer(tmp_path / "model"), "How much is 2 + 2?"
    assert loaded.encode(text) == tokenizer.encode(text)
    rendered = peer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == loaded.template.render([Message(role="user", content=question)], add_generation_prompt=True)
    assert question in rendered


def test_mtp_layers_lie_in_a_file_of_their_own(model_of, tokenizer, tmp_path):
    """Named as the layers behind the last one, as in the released weights."""
    save_model(tmp_path / "model", model_of("deepseek_v3, two mtp layers"), tokenizer)
    with safe_open(tmp_path / "model" / "mtp.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {name.split(".")[2] for name in names} == {"2", "3"}
    own = {"enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight"}
    assert {f"model.layers.2.{name}" for name in own} <= names
    assert "model.layers.3.mlp.gate.e_score_correction_bias" in names
    with safe_open(tmp_path / "model" / "model.safetensors", framework="pt") as file:
        main = set(file.keys())
    assert main & names == set()
    assert {name.split(".")[2] for name in main if ".layers." in name} == {"0", "1"}


def test_files_of_lower_precision_are_read(model_of, tokenizer, tmp_path):
    """Released weights are mostly bfloat16: read into float32 without further loss."""
    model = model_of("qwen2")
    save_model(tmp_path / "model", model, tokenizer)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.bfloat16)
    peer.save_pretrained(tmp_path / "half")
    loaded = load_model(tmp_path / "half")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16().float()), name


def test_transformers_opens_shards(model_of, tokenizer, tmp_path, caplog):
    model = model_of()
    save_model(tmp_path / "model", model, tokenizer, shard_bytes=10_000)
    assert not (tmp_path / "model" / "model.safetensors").exists()
    assert_same_model(load_model(tmp_path / "model"), model)
    with caplog.at_level(logging.WARNING):
        peer, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    assert caplog.records == []
    ids, positions = torch.randint(0, 280, (2, 17)), torch.arange(17).expand(2, 17)
    with torch.no_grad():
        expected = peer.eval()(ids).logits
        torch.testing.assert_close(model.logits(model(ids, positions)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_transformers_opens_lower_precision(model_of, tokenizer, tmp_path, dtype):
    """In the type that config.json names, with the same values; the balance bias in float32."""
    model = model_of()
    save_model(tmp_path / "model", model, tokenizer, dtype=dtype)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert peer.dtype == dtype
    theirs, ours = peer.state_dict(), load_model(tmp_path / "model").state_dict()
    assert torch.equal(theirs["model.norm.weight"].float(), ours["norm.weight"])
    assert torch.equal(theirs["model.embed_tokens.weight"], model.embed.weight.to(dtype))
    bias_E = theirs["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert bias_E.dtype == torch.float32
    assert torch.equal(bias_E, model.routers()[0].bias_E)


# torch says so of a shared expert of width 0.
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_what_transformers_writes_is_read(any_model, tokenizer, tmp_path):
    """Its config.json names some things in newer ways (rope_parameters, dtype)."""
    save_model(tmp_path / "ours", any_model, tokenizer)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    peer.save_pretrained(tmp_path / "theirs")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    if any_model.config.mtp_layers:
        # transformers does not keep what it does not use.
        config["num_nextn_predict_layers"] = 0
        (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    loaded = load_model(tmp_path / "theirs").eval()
    ids, positions = torch.randint(0, 280, (2, 9)), torch.arange(9).expand(2, 9)
    with torch.no_grad():
        assert torch.equal(loaded(ids, positions), any_model(ids, positions))


def test_saving_again_replaces_the_folder_as_a_whole(model_of, tokenizer, tmp_path):
    """No file of the earlier model stays behind."""
    save_model(tmp_path / "model", model_of("deepseek_v3, two mtp layers"), tokenizer)
    (tmp_path / "model" / "stray").write_text("left by somebody")
    save_model(tmp_path / "model", model_of("qwen3"), tokenizer)
    assert_same_model(load_model(tmp_path / "model"), model_of("qwen3"))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failed_write_leaves_the_old_folder(model_of, tokenizer, tmp_path, monkeypatch):
    save_model(tmp_path / "model", model_of(), tokenizer)

    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("octavo.checkpoint.write_all", full)
    with pytest.raises(StorageError, match=r"cannot write .*model.*No space left on device"):
        save_model(tmp_path / "model", model_of("qwen3"), tokenizer)
    assert_same_model(load_model(tmp_path / "model"), model_of())


def test_models_without_a_layout_are_refused_before_writing(tokenizer, tmp_path):
    shape = {"vocab_size": 280, "width": 16, "layers": 2, "ffn_width": 24}
    moe = {"experts": 4, "experts_per_token": 2, "expert_width": 8}
    gqa = {"kind": "gqa", "heads": 4, "kv_heads": 2}
    mla = {"kind": "mla", "heads": 2, "kv_rank": 12, "nope_dim": 8, "rope_dim": 4, "v_dim": 6}
    for parts, message in [
        ({"attention": gqa, "moe": moe}, "the nearest, qwen3_moe, has attention.qk_norm 'head'"),
        (
            {"attention": gqa | {"qkv_bias": True, "qk_norm": "head"}},
            "the nearest, qwen3, has attention.qkv_bias False",
        ),
        ({"attention": mla}, "latent attention without experts has no Hugging Face layout"),
        ({"attention": mla, "moe": moe | {"groups": 4, "groups_per_token": 2}}, "groups of one expert"),
        ({"attention": gqa, "mtp_layers": 1}, "the nearest, llama, has mtp_layers 0"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            save_model(tmp_path / "model", Transformer(ModelConfig.parse(shape | parts)), tokenizer)
        assert not (tmp_path / "model").exists()
