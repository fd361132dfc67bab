"""Training with adapters: the same loop, checkpoints without the base, samples from what is trained."""

import pytest
import torch
from test_loop import LOSS
from tiny_text import dense_config, sparse_config, tokenizer
from tiny_training import SPARSE, RandomStream, losses, same_weights, stage_dir, tiny_model, tiny_optimizer

from octavo.checkpoint import load_latest
from octavo.data.batch import Batch
from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.engine.folded import FoldedCompleter
from octavo.engine.rounded import RoundedCompleter
from octavo.losses.logprobs import token_logprobs
from octavo.model.lora import LoraConfig, adapters, add_lora, drop_lora, merge_lora
from octavo.model.quantize import quantize
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.train.learned import learned_state, load_learned
from octavo.train.loop import fit
from octavo.train.progress import Silent
from octavo.train.samples import Sample, pack_samples
from octavo.train.types import HeldOut, LoopConfig
from octavo.world import World

WORLD = World.single()
LORA = LoraConfig(rank=4, targets=("attention", "ffn", "experts", "router"))


class Killed(Silent):
    def on_step(self, progress):
        if progress.step == 3:
            raise KeyboardInterrupt


class Memorize(RandomStream):
    def __next__(self):
        self.position = 0
        return super().__next__()


def run(path, observer=None, held_out=None, stream=None, **options):
    model = tiny_model(SPARSE)
    add_lora(model, LORA)
    stage = stage_dir(path)
    loop = LoopConfig(steps=6, bias_rate=0.01, bias_freeze_share=0.0, **options)
    fit(
        model,
        tiny_optimizer(model),
        stream or RandomStream(),
        LOSS,
        loop,
        WORLD,
        stage,
        observer=observer,
        held_out=held_out,
    )
    return model, stage


def test_adapters_learn_and_all_else_stays(tmp_path):
    model, stage = run(tmp_path, stream=Memorize())
    # The head is frozen and small, so the logits are bounded: 0.3 is all that any hidden states could win here.
    assert losses(stage)[-1] < losses(stage)[0] - 0.05
    assert all(bool(adapter.deltas()[0][2].any()) for adapter in adapters(model).values())
    drop_lora(model)
    # The bias of the routers too, though the load was uneven: an adapter has no place for it.
    assert same_weights(model, tiny_model(SPARSE))


def test_checkpoints_hold_adapters_only_and_resume_bit_for_bit(tmp_path):
    whole, whole_stage = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", observer=Killed(), checkpoint_every_steps=1)
    step, state = load_latest(stage_dir(tmp_path / "killed").state)
    assert step == 3
    assert {name for name in state["model"] if "lora_" not in name} == {
        f"{path}.base.bias_E" for path in adapters(whole) if path.endswith("router")
    } | {"mtp.0.block.ffn.router.bias_E"}
    resumed, resumed_stage = run(tmp_path / "killed", checkpoint_every_steps=1)
    assert same_weights(whole, resumed)
    assert losses(whole_stage) == losses(resumed_stage)


def test_the_best_adapters_come_back(tmp_path):
    scores = iter([0.1, 0.2, 0.9, 0.5])
    model, _ = run(tmp_path / "a", held_out=HeldOut("held_out", lambda: next(scores)), evaluate_every_steps=2)
    _, state = load_latest(stage_dir(tmp_path / "a").state)
    assert state["best"]["step"] == 4
    best = state["best"]["model"]
    assert all(torch.equal(tensor, best[name]) for name, tensor in learned_state(model).items())
    assert any(not torch.equal(tensor, best[name]) for name, tensor in state["model"].items())


def test_a_state_of_other_parts_is_refused():
    model = tiny_model(SPARSE)
    whole = learned_state(model)
    assert whole.keys() == model.state_dict().keys()
    add_lora(model, LORA)
    with pytest.raises(ValueError, match=r"state of \d+ tensors for a model that learns \d+"):
        load_learned(model, whole)


@pytest.mark.parametrize("fold", [False, True])
def test_samples_come_from_the_weights_that_are_trained(fold):
    """Learner and engine agree on log-probs, before and after the adapters change; so does the merged model."""
    model = tiny_model(sparse_config())
    add_lora(model, LORA)
    engine = Engine(model, tokenizer(), EngineConfig(max_rows=8, max_tokens=64))
    completer = FoldedCompleter(engine, model) if fold else engine
    prompt = tuple(tokenizer().encode("3 plus 4"))
    request = CompletionRequest(prompt, SamplingParams(max_tokens=12, seed=3), samples=4)
    drawn = []
    for spread in (0.0, 0.2):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(spread * torch.randn_like(parameter))
        (completions,) = completer.complete([request])
        (batch,) = pack_samples([Sample(completion, 1.0, 1.0) for completion in completions], 1000)
        torch.testing.assert_close(learner_logprobs(model, batch), behaviour(batch), rtol=0, atol=1e-4)
        drawn.append([completion.ids for completion in completions])
    assert drawn[0] != drawn[1]
    merge_lora(model)
    torch.testing.assert_close(learner_logprobs(model, batch), behaviour(batch), rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", [dense_config(), sparse_config()], ids=["dense", "sparse"])
def test_rounded_samples_are_those_of_the_merged_and_rounded_model(config):
    """They are drawn beside the learner, which stays as it is, bit for bit."""
    model = tiny_model(config)
    add_lora(model, LORA)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    before = {name: (tensor.clone(), tensor.requires_grad) for name, tensor in model.state_dict(keep_vars=True).items()}
    bounds = EngineConfig(max_rows=8, max_tokens=64)
    request = CompletionRequest(tuple(tokenizer().encode("3 plus 4")), SamplingParams(max_tokens=12, seed=3), samples=4)
    (found,) = RoundedCompleter(model, tokenizer(), bounds).complete([request])
    after = model.state_dict(keep_vars=True)
    assert all(torch.equal(after[name], tensor) for name, (tensor, _) in before.items())
    assert all(after[name].requires_grad is wanted for name, (_, wanted) in before.items())
    assert model.training
    merge_lora(model)
    (exact,) = Engine(model, tokenizer(), bounds).complete([request])
    quantize(model, "int8")
    (expected,) = Engine(model, tokenizer(), bounds).complete([request])
    assert [completion.ids for completion in found] == [completion.ids for completion in expected]
    logprobs, rounded = (torch.tensor([each.logprobs for each in group]) for group in (found, expected))
    torch.testing.assert_close(logprobs, rounded, rtol=0, atol=1e-5)
    assert [completion.logprobs for completion in exact] != [completion.logprobs for completion in found]


def learner_logprobs(model, batch: Batch) -> torch.Tensor:
    hidden_RD = model.train()(batch.inputs_BT, batch.positions_BT).flatten(0, 1)
    found = token_logprobs(hidden_RD, model.head_weight_VD, batch.targets_BT.flatten())
    return found[batch.weights_BT.flatten() > 0].detach()


def behaviour(batch: Batch) -> torch.Tensor:
    assert batch.behaviour_logprobs_BT is not None
    return batch.behaviour_logprobs_BT[batch.weights_BT > 0]
