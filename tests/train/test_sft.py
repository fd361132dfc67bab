import torch
from tiny_text import conversation_source, dense_config, reading_options, tokenizer
from tiny_training import stage_dir, tiny_model

from octavo.rundir import read_jsonl
from octavo.train.reading import packed_loader
from octavo.train.sft import SFTConfig, sft
from octavo.world import World

WORLD = World.single()


def test_only_what_the_assistant_says_counts():
    loader = packed_loader(tokenizer(), conversation_source(), SFTConfig(**reading_options()), WORLD, seed=0)
    for batch in next(loader):
        counted = batch.weights_BT > 0
        text = tokenizer().decode(batch.targets_BT[counted].tolist())
        assert "plus" not in text
        assert "<think>" in text
        # Each reply ends with the end of turn, which counts.
        ends = batch.targets_BT == tokenizer().token_id("<|end|>")
        assert (counted & ends).any()
    both = SFTConfig(**reading_options(), train_on_prompts=True)
    (batch, *_) = next(packed_loader(tokenizer(), conversation_source(), both, WORLD, seed=0))
    assert "plus" in tokenizer().decode(batch.targets_BT[batch.weights_BT > 0].tolist())


def test_learns_to_reply(tmp_path):
    torch.manual_seed(0)
    stage = stage_dir(tmp_path)
    config = SFTConfig(**reading_options(40))
    sft(tiny_model(dense_config()), tokenizer(), conversation_source(), config, WORLD, stage, seed=1)
    rows = read_jsonl(stage.metrics)
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    assert rows[-1]["correct_probability"] > rows[0]["correct_probability"]


def test_epochs_end_the_run_before_the_steps_do(tmp_path):
    config = SFTConfig(**reading_options(1000), epochs=1)
    result = sft(
        tiny_model(dense_config()), tokenizer(), conversation_source(), config, WORLD, stage_dir(tmp_path), seed=1
    )
    assert 1 < result.step < 30
