import pytest
import torch
from tiny_training import DENSE, tiny_model

from octavo.losses.policy import completion_token_weight
from octavo.tasks.types import Completion
from octavo.train.samples import Sample, completions_in, pack_samples, with_reference


def sample(prompt, ids, advantage=1.0, weight=1.0):
    logprobs = tuple(-0.1 * token for token in ids)
    return Sample(Completion(tuple(prompt), tuple(ids), logprobs, "", "stop"), advantage, weight)


def test_a_micro_batch_by_hand():
    (batch,) = pack_samples([sample([1, 2, 3], [4, 5], 0.5), sample([6], [7], -2.0)], 100)
    # The shorter one comes first.
    assert batch.inputs_BT.tolist() == [[6, 1, 2, 3, 4]]
    assert batch.targets_BT.tolist() == [[7, 2, 3, 4, 5]]
    assert batch.positions_BT.tolist() == [[0, 0, 1, 2, 3]]
    assert batch.weights_BT.tolist() == [[1, 0, 0, 1, 1]]
    assert batch.advantages_BT.tolist() == [[-2.0, 0, 0, 0.5, 0.5]]
    torch.testing.assert_close(batch.behaviour_logprobs_BT, torch.tensor([[-0.7, 0.0, 0.0, -0.4, -0.5]]))
    assert completions_in(batch) == 2


def test_completions_side_by_side_without_prompt_tokens_between_are_told_apart():
    (batch,) = pack_samples([sample([1], [2, 3]), sample([1], [2, 3]), sample([1], [4])], 100)
    assert batch.weights_BT.tolist() == [[1, 1, 1, 1, 1]]
    assert completions_in(batch) == 3


def test_completions_of_one_prompt_share_it():
    (batch,) = pack_samples([sample([1, 2, 3], [4, 5]), sample([1, 2, 3], [6]), sample([1, 2, 3], [7, 8, 9])], 100)
    # The prompt but its last token once, then each completion behind that last token; the shortest first.
    assert batch.inputs_BT.tolist() == [[1, 2, 3, 3, 4, 3, 7, 8]]
    assert batch.targets_BT.tolist() == [[2, 3, 6, 4, 5, 7, 8, 9]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 2, 3, 2, 3, 4]]
    assert batch.weights_BT.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1]]
    assert completions_in(batch) == 3


def test_shared_prompts_do_not_change_log_probs():
    model = tiny_model(DENSE).eval()
    samples = [sample([1, 2, 3], ids) for ids in ([4, 5], [6], [7, 8, 9])] + [sample([5, 6], [7, 8])]
    (batch,) = pack_samples(samples, 100)
    together = with_reference(batch, model).reference_logprobs_BT[batch.weights_BT > 0]
    alone = [with_reference(pack_samples([each], 100)[0], model).reference_logprobs_BT for each in samples]
    order = [3, 1, 0, 2]  # groups by their longest sample, samples by length
    expected = torch.cat([alone[each][alone[each] != 0] for each in order])
    torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-6)


def test_micro_batches_hold_at_most_so_many_tokens_and_lose_nothing():
    samples = [sample(range(1, 2 + number % 5), range(1, 3 + number % 7)) for number in range(30)]
    batches = pack_samples(samples, 16)
    assert all(batch.tokens <= 16 for batch in batches)
    assert sum(batch.weight for batch in batches) == sum(len(sample.completion.ids) for sample in samples)
    assert sum(completions_in(batch) for batch in batches) == 30
    # Longer than a micro-batch: one by itself.
    assert [batch.tokens for batch in pack_samples([sample([1] * 20, [2]), sample([1], [2])], 16)] == [1, 20]
    assert pack_samples([], 16) == []


@pytest.mark.parametrize(("kind", "expected"), [("dapo", 5.0), ("grpo", 2.0), ("dr_grpo", 0.5)])
def test_sum_of_weights_of_each_kind(kind, expected):
    """2 completions, of 2 and 3 tokens, where 10 are allowed."""
    samples = [sample([1], ids, weight=completion_token_weight(kind, len(ids), 10)) for ids in ([2, 3], [4, 5, 6])]
    (batch,) = pack_samples(samples, 100)
    assert batch.weight == pytest.approx(expected)


def test_reference_logprobs_are_those_of_each_completion_alone():
    model = tiny_model(DENSE).eval()
    samples = [sample([1, 2, 3], [4, 5]), sample([6], [7])]
    (batch,) = pack_samples(samples, 100)
    logprobs_BT = with_reference(batch, model).reference_logprobs_BT
    assert logprobs_BT[batch.weights_BT == 0].abs().max() == 0
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    logits_TV = model.logits(model(ids[:, :-1], torch.arange(4)[None]))[0].log_softmax(-1)
    torch.testing.assert_close(logprobs_BT[0, -2:], logits_TV[[2, 3], [4, 5]].detach())
    assert not logprobs_BT.requires_grad
