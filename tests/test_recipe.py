import json
from pathlib import Path

import pytest
import yaml

from octavo.errors import ConfigError, DataError
from octavo.model.accounting import Accounting
from octavo.recipe import Recipe, differences, identities, load_recipe, parse_recipe, shipped_recipes

RECIPE = """
name: tiny
tasks:
  gcd: {kind: reasoning_gym, name: gcd, params: {max_value: 20}}
  chain_sum: {kind: reasoning_gym, name: chain_sum}
stages:
  tokenizer: {kind: tokenizer, vocab_size: 280, corpus: {kind: solutions, documents: 30}}
  base:
    kind: pretrain
    tokenizer: tokenizer
    corpus: {kind: solutions, documents: 30}
    model: {width: 32, layers: 1, ffn_width: 64, attention: {kind: gqa, heads: 2, kv_heads: 1}}
    optimizer: {learning_rate: 0.003}
    tokens_per_step: 512
    tokens_per_row: 128
    micro_batch_tokens: 512
    loop: {steps: 20}
  samples: {kind: sample, model: base, problems: 8, max_tokens: 32}
  tuned:
    kind: sft
    model: base
    data: samples
    optimizer: {learning_rate: 0.003}
    tokens_per_step: 512
    tokens_per_row: 128
    micro_batch_tokens: 512
    loop: {steps: 5}
  eval-tuned: {kind: eval, row: tuned, model: tuned}
  eval-base: {kind: eval, row: base, model: base}
result: tuned
"""


def parse(*overrides: str, text: str = RECIPE) -> Recipe:
    return parse_recipe(text, "recipe tiny", overrides)


def fingerprints(*overrides: str) -> dict[str, str]:
    return {name: identity.fingerprint for name, identity in identities(parse(*overrides)).items()}


def changed_by(*overrides: str) -> set[str]:
    before, after = fingerprints(), fingerprints(*overrides)
    return {name for name in before if before[name] != after[name]}


def test_the_vocabulary_is_the_tokenizers():
    assert parse().dump()["stages"]["base"]["model"]["vocab_size"] == 280
    assert parse("tokenizer.vocab_size=300").dump()["stages"]["base"]["model"]["vocab_size"] == 300


def test_the_resolved_config_reads_back():
    recipe = parse("base.loop.steps=7")
    again = parse_recipe(yaml.safe_dump(recipe.dump(), sort_keys=False), "again")
    assert again == recipe
    assert again.stages["base"].dump()["loop"]["steps"] == 7


@pytest.mark.parametrize("key", ["base.loop.steps", "stages.base.loop.steps"])
def test_overrides_have_a_short_form(key):
    assert parse(f"{key}=3").stages["base"].dump()["loop"]["steps"] == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bse.loop.steps=3", "no key or stage 'bse' (did you mean base?)"),
        ("base.loop.stepz=3", "unknown key stages.base.loop.stepz (did you mean steps?)"),
        (
            "base.optimizer.learning_rate=.inf",
            "stages.base.optimizer.learning_rate: should be a finite number, got inf",
        ),
        ("base.loop.steps=many", "stages.base.loop.steps: should be a valid integer"),
        ("base.model.attention.heads=5", "attention.heads (5) must divide width (32)"),
        ("base.kind=pretrian", "pretrian"),
        ("base.tokenizer=tokeniser", "stages.base.tokenizer: no stage is named 'tokeniser' (did you mean tokenizer?)"),
        ("base.tokenizer=samples", "stages.base.tokenizer: stage 'samples' does not stand above"),
        ("base.tokenizer=base", "stages.base.tokenizer: stage 'base' does not stand above"),
        ("tuned.model=tokenizer", "distill or on_policy_distill, but 'tokenizer' is"),
        ("tuned.data=base", "stages.tuned.data: expected a stage of kind sample, but 'base' is pretrain"),
        ("tuned.corpus={kind: files, paths: [x]}", "expected either data (a sample stage) or corpus"),
        ("base.start=base", "expected either tokenizer and model"),
        ("base.corpus.tasks=[gdc]", "stages.base.corpus: no task is named 'gdc' (did you mean gcd?)"),
        ("result=samples", "result: expected a stage of kind"),
        ("result=finale", "result: no stage is named 'finale'"),
        ("stages.old={kind: eval, row: x}", "no stage may be named 'old'"),
        ("name=../x", "the name '../x' must be letters"),
        ("threads=0", "threads"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(override, message):
    with pytest.raises(ConfigError) as caught:
        parse(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "expected a mapping with a mapping `stages`"),
        ("a: [", "not YAML"),
        ("stages: {a: 1}", "recipe tiny"),
    ],
)
def test_what_is_no_recipe_is_named(text, message):
    with pytest.raises(ConfigError, match="recipe tiny") as caught:
        parse(text=text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stages_that_draw_problems_need_tasks():
    values = yaml.safe_load(RECIPE) | {"tasks": {}}
    with pytest.raises(ConfigError, match=r"stages\.samples: kind sample draws problems, and the recipe has no tasks"):
        parse(text=yaml.safe_dump(values, sort_keys=False))


def test_experts_that_cannot_be_chosen():
    with pytest.raises(ConfigError, match=r"experts_per_token \(9\) exceeds experts \(8\)"):
        parse("base.model.moe={experts: 8, experts_per_token: 9, expert_width: 4}")


def test_unknown_recipes_get_the_nearest_name(tmp_path):
    with pytest.raises(ConfigError, match=r"'smok'.*did you mean smoke\?"):
        load_recipe("smok")
    binary = tmp_path / "r.yaml"
    binary.write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_recipe(str(binary))


def test_a_recipe_may_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    assert load_recipe(str(path)) == parse()


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_build(name, tmp_path, monkeypatch):
    """With a folder of texts, and open weights fetched (here: a file in their place)."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a text")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("octavo.stages.open.find_model", lambda weights: tmp_path / "texts" / "a.txt")
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len({identity.fingerprint for identity in identities(recipe).values()}) == len(recipe.stages)


def test_fingerprints_follow_what_is_read():
    everything = set(parse().stages)
    assert changed_by() == set()
    assert changed_by("description=x", "threads=3", "result=base") == set()
    assert changed_by("base.loop.steps=21") == everything - {"tokenizer"}
    assert changed_by("samples.keep=1") == {"samples", "tuned", "eval-tuned"}
    assert changed_by("evaluation.samples=4") == {"eval-base", "eval-tuned"}
    assert changed_by("seed=1") == changed_by("tasks.gcd.weight=2") == everything


def test_fingerprints_follow_the_content_of_files(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("one")
    corpus = f"base.corpus={{kind: files, paths: ['{text}']}}"
    before = fingerprints(corpus)
    text.write_text("two")
    after = fingerprints(corpus)
    assert {name for name in before if before[name] != after[name]} == set(before) - {"tokenizer"}
    text.unlink()
    with pytest.raises(DataError, match="no such file"):
        fingerprints(corpus)


def test_fingerprints_follow_the_questions_of_a_jsonl_task(tmp_path: Path):
    questions = tmp_path / "q.jsonl"
    questions.write_text(json.dumps({"question": "a", "answer": "b"}) + "\n")
    task = f"tasks.mine={{kind: jsonl, path: {questions}}}"
    before = fingerprints(task)
    questions.write_text(json.dumps({"question": "a", "answer": "c"}) + "\n")
    after = fingerprints(task)
    assert all(before[name] != after[name] for name in before)


def test_differences_name_what_changed():
    before, after = (identities(parse(*o)) for o in ((), ("base.loop.steps=21", "base.model.tie_embeddings=true")))
    base = differences(before["base"].facts, after["base"].facts)
    assert base == ["loop.steps 20 -> 21", "model.tie_embeddings False -> True"]
    assert differences(before["samples"].facts, after["samples"].facts) == ["another model"]


def test_readers_are_those_that_depend():
    recipe = parse()
    assert recipe.readers("base") == ["samples", "tuned", "eval-tuned", "eval-base"]
    assert recipe.readers("samples") == ["tuned", "eval-tuned"]
    assert recipe.readers("eval-base") == []


def test_every_stage_has_a_seed_of_its_own():
    recipe = parse()
    assert len({recipe.stage_seed(name) for name in recipe.stages}) == len(recipe.stages)
    assert recipe.stage_seed("base") == parse("base.loop.steps=9").stage_seed("base")


def test_the_base_of_r1_mini_is_sparse():
    config = load_recipe("r1-mini").stages["base"].model
    accounting = Accounting.of(config)
    assert config.moe.experts >= 32
    assert 6 * accounting.active_parameters <= accounting.total_parameters
