import math

import pytest
import torch
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped

from octavo.errors import ConfigError
from octavo.losses.policy import PolicyConfig, completion_token_weight, k3, policy_loss

ONES = torch.ones(4)
# Four tokens whose probability is now 1.5, 1.5, 0.5 and 0.5 times that at sampling, with advantages +, -, +, -.
BEHAVIOUR = torch.full((4,), -1.0)
LOGPROBS = BEHAVIOUR + torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
ADVANTAGES = torch.tensor([1.0, -1.0, 1.0, -1.0])


def test_clip_by_hand():
    logprobs_R = LOGPROBS.clone().requires_grad_()
    loss = policy_loss(PolicyConfig(), logprobs_R, BEHAVIOUR, ADVANTAGES, ONES)
    # Surrogates: min(1.5, 1.28), min(-1.5, -1.28), min(0.5, 0.8), min(-0.5, -0.8).
    torch.testing.assert_close(loss.loss_sum, torch.tensor(-(1.28 - 1.5 + 0.5 - 0.8)))
    loss.loss_sum.backward()
    # Where the clip cuts, no gradient; elsewhere -ratio x advantage.
    torch.testing.assert_close(logprobs_R.grad, torch.tensor([0.0, 1.5, -0.5, 0.0]))
    assert loss.sums["clip_share"] == 2
    torch.testing.assert_close(loss.sums["ratio"], torch.tensor(4.0))
    torch.testing.assert_close(loss.maxima["ratio_max"], torch.tensor(1.5))
    assert "kl" not in loss.sums


def test_on_policy_gradient_is_that_of_the_plain_policy_gradient():
    logprobs_R = BEHAVIOUR.clone().requires_grad_()
    policy_loss(PolicyConfig(), logprobs_R, BEHAVIOUR, ADVANTAGES, ONES).loss_sum.backward()
    torch.testing.assert_close(logprobs_R.grad, -ADVANTAGES)


def test_truncated_importance_weight_by_hand():
    logprobs_R = LOGPROBS.clone().requires_grad_()
    loss = policy_loss(PolicyConfig(importance_cap=1.25), logprobs_R, BEHAVIOUR, ADVANTAGES, ONES)
    loss.loss_sum.backward()
    torch.testing.assert_close(logprobs_R.grad, -torch.tensor([1.25, -1.25, 0.5, -0.5]))
    assert loss.sums["clip_share"] == 2


def test_kl_to_the_reference_by_hand():
    logprobs_R = BEHAVIOUR.clone().requires_grad_()
    reference_R = BEHAVIOUR + math.log(2)
    loss = policy_loss(PolicyConfig(kl_coefficient=0.1), logprobs_R, BEHAVIOUR, torch.zeros(4), ONES, reference_R)
    each = 2 - math.log(2) - 1
    torch.testing.assert_close(loss.sums["kl"], torch.tensor(4 * each))
    torch.testing.assert_close(loss.loss_sum, torch.tensor(0.4 * each))
    loss.loss_sum.backward()
    # d k3 / d logprob = 1 - ratio: towards the reference.
    torch.testing.assert_close(logprobs_R.grad, torch.full((4,), 0.1 * (1 - 2)))


def test_token_weights_make_the_three_kinds():
    lengths, max_tokens = [2, 5], 10
    weights = {
        kind: [completion_token_weight(kind, length, max_tokens) for length in lengths]
        for kind in ("dapo", "grpo", "dr_grpo")
    }
    assert weights == {"dapo": [1.0, 1.0], "grpo": [0.5, 0.2], "dr_grpo": [0.1, 0.1]}
    # grpo: a completion weighs 1 whatever its length, so the sum of weights is the number of completions.
    assert sum(n * w for n, w in zip(lengths, weights["grpo"], strict=True)) == 2


@given(st.floats(-5, 5))
def test_k3_is_never_negative(log_ratio: float):
    assert k3(torch.tensor([log_ratio], dtype=torch.float64)).item() >= -1e-15


def test_no_completion_token_at_all():
    empty = torch.zeros(0)
    loss = policy_loss(PolicyConfig(), empty, empty, empty, empty)
    assert loss.loss_sum == 0
    assert loss.maxima["ratio_max"] == 0


def test_bad_values_and_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"importance_cap must be at least 1, got 0\.5"):
        PolicyConfig.parse({"importance_cap": 0.5})
    checked = jaxtyped(typechecker=beartype)(policy_loss)
    with pytest.raises(TypeCheckError):
        checked(PolicyConfig(), LOGPROBS, BEHAVIOUR[:3], ADVANTAGES, ONES)
