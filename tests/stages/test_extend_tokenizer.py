"""A recipe that gives a model tokens for another language, and trains it further."""

import io
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from octavo.console import JsonDisplay
from octavo.errors import DataError
from octavo.press import Press
from octavo.recipe import identities, parse_recipe
from octavo.weights.gguf import load_gguf, write_gguf
from octavo.weights.hf import load_model, load_tokenizer
from tiny_recipe import RECIPE

GEORGIAN = "გამარჯობა, მკითხველო! მკითხველი კითხულობს წიგნს, მწერალი წერს წიგნს. "
LANGUAGE = """
name: language
threads: 1
stages:
  start: {{kind: open, weights: {start}}}
  extended:
    kind: extend_tokenizer
    model: start
    corpus: &train {{kind: files, paths: [{texts}], part: train}}
    new_tokens: 40
  before: {{kind: text_score, model: extended, text: &held_out {{paths: [{texts}], part: held_out}}, most_bytes: 2000}}
  learned:
    kind: pretrain
    start: extended
    corpus: *train
    optimizer: {{kind: adamw, learning_rate: 0.01}}
    tokens_per_step: 256
    tokens_per_row: 64
    micro_batch_tokens: 256
    loop: {{steps: 8}}
  after: {{kind: text_score, model: learned, text: *held_out, most_bytes: 2000}}
result: learned
"""


def press(recipe, folder, overrides=()):
    shown = io.StringIO()
    Press(parse_recipe(recipe, "language", overrides), folder, JsonDisplay(shown)).run()
    return [json.loads(line) for line in shown.getvalue().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of all of it, with what it said."""
    folder = tmp_path_factory.mktemp("made")
    press(RECIPE, folder / "start", ["stages.tuned.loop.steps=1", "evaluation.problems=2"])
    (folder / "texts").mkdir()
    for number in range(40):
        (folder / "texts" / f"{number}.txt").write_text(f"{number} {GEORGIAN * (1 + number % 3)}", encoding="utf-8")
    recipe = LANGUAGE.format(start=folder / "start" / "base", texts=folder / "texts")
    return folder, recipe, press(recipe, folder / "run")


def read(folder, name):
    return json.loads((folder / "run" / name).read_text())


def test_the_language_is_cut_and_foretold_better_and_english_cut_as_before(made):
    folder, _, events = made
    vocabulary = read(folder, "extended/vocabulary.json")
    assert vocabulary["new_tokens"] == 40
    assert vocabulary["vocab_size"] == 320
    assert vocabulary["language_after"]["tokens"] < 0.3 * vocabulary["language_before"]["tokens"]
    assert vocabulary["language_after"]["words"] == vocabulary["language_before"]["words"]
    assert vocabulary["english_after"] == vocabulary["english_before"]
    said = [event["text"] for event in events if event["event"] == "note"]
    assert any("40 new tokens: " in text and "tokens a word in English prose" in text for text in said)
    assert "vocabulary.json" in read(folder, "extended/manifest.json")["outputs"]
    before, after = (read(folder, f"{name}/text_score.json") for name in ("before", "after"))
    assert after["bytes"] == before["bytes"]
    assert after["bits_per_byte"] < 0.9 * before["bits_per_byte"]


def test_transformers_and_gguf_give_the_same_logits(made, tmp_path):
    folder, _, _ = made
    path = folder / "run" / "learned" / "model"
    model, tokenizer = load_model(path), load_tokenizer(path)
    theirs, their_tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    ids = torch.tensor([tokenizer.encode(GEORGIAN)])
    assert ids.max() >= 280
    assert their_tokenizer.encode(GEORGIAN, add_special_tokens=False) == ids[0].tolist()
    with torch.no_grad():
        ours = model.logits(model(ids, torch.arange(ids.shape[1])[None]))
        torch.testing.assert_close(ours, theirs(ids).logits, atol=1e-5, rtol=1e-4)
        write_gguf(tmp_path / "m.gguf", model, tokenizer, "F32")
        again, again_tokenizer = load_gguf(tmp_path / "m.gguf")
        assert again_tokenizer.encode(GEORGIAN) == ids[0].tolist()
        torch.testing.assert_close(again.logits(again(ids, torch.arange(ids.shape[1])[None])), ours)


def test_a_change_of_the_texts_is_noticed(made):
    folder, recipe, _ = made
    before = identities(parse_recipe(recipe, "language"))
    extra = folder / "texts" / "more.txt"
    extra.write_text(GEORGIAN, encoding="utf-8")
    after = identities(parse_recipe(recipe, "language"))
    extra.unlink()
    changed = {name for name in before if before[name].fingerprint != after[name].fingerprint}
    assert changed == {"extended", "before", "learned", "after"}


def test_more_tokens_than_the_text_gives_are_refused_by_number(made, tmp_path):
    _, recipe, _ = made
    with pytest.raises(DataError, match="too little text for 4,000 new tokens"):
        press(recipe, tmp_path / "run", ["extended.new_tokens=4000"])
