"""Policy loss of the GRPO family: clipped surrogate, optional KL to a reference, optional sampler correction.

Sources: GRPO (DeepSeekMath, arXiv 2402.03300, eq. 3), DAPO (2503.14476: token-level loss, asymmetric clip), Dr. GRPO
(2503.20783: constant normalizer), k3 estimator (Schulman 2020), truncated importance weight (Yao et al. 2025,
"off-policy RL").

The kinds differ only in how much a token counts, so they are told by weights and a normalizer and share one formula:

    kind      weight of a token    global normalizer          effect
    dapo      1                    completion tokens          every token counts the same
    grpo      1 / len(completion)  completions                every completion counts the same
    dr_grpo   1 / max_tokens       completions                as dapo, but a long step is not scaled down

Deviation: the papers average over one group or micro-batch; here the normalizer is that of the whole optimizer step,
over all micro-batches and ranks, so that the gradient does not depend on how the step is cut.

Shapes: `R` completion tokens, flat, of any number of completions.
"""

from __future__ import annotations

from typing import Literal, Self

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from octavo.config import Config
from octavo.losses.loss_sum import LossSum

PolicyKind = Literal["dapo", "grpo", "dr_grpo"]


class PolicyConfig(Config):
    """The policy loss."""

    kind: PolicyKind = "dapo"
    """How tokens are weighted: see the table in losses/policy.py."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """A token whose probability fell below 1 - clip_low of its value at sampling is not pushed further down."""
    clip_high: float = Field(default=0.28, gt=0)
    """A token whose probability rose above 1 + clip_high of its value at sampling is not pushed further up."""
    kl_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence to the reference model (k3 estimator); 0: no reference model is kept in memory."""
    importance_cap: float | None = Field(default=None, gt=0)
    """For a sampler that differs from the learner (another engine, quantized weights): truncate the importance weight
    here, instead of clipping the ratio; the clips are then without effect. None: sampler and learner agree."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.importance_cap is not None and self.importance_cap < 1:
            raise ValueError(f"importance_cap must be at least 1, got {self.importance_cap}")
        return self


def completion_token_weight(kind: PolicyKind, completion_tokens: int, max_tokens: int) -> float:
    """Loss weight of each token of a completion of that length, where completions may have `max_tokens`."""
    return {"dapo": 1.0, "grpo": 1.0 / completion_tokens, "dr_grpo": 1.0 / max_tokens}[kind]


def policy_loss(
    config: PolicyConfig,
    logprobs_R: Float[Tensor, "R"],
    behaviour_logprobs_R: Float[Tensor, "R"],
    advantages_R: Float[Tensor, "R"],
    weights_R: Float[Tensor, "R"],
    reference_logprobs_R: Float[Tensor, "R"] | None = None,
) -> LossSum:
    """Sum of weight x (-surrogate + kl_coefficient x KL).

    `behaviour_logprobs_R` were recorded when the token was drawn. With `importance_cap` None the surrogate is
    min(r A, clip(r) A), r = p / p_behaviour. Otherwise it is min(r, cap).detach() x A x log p: the policy gradient
    with a truncated importance weight, which needs no clip to stay bounded.
    Statistics: `ratio`, `clip_share` (tokens whose gradient the clip or cap cut), `behaviour_kl` (k3, behaviour to
    learner), `kl` (k3, to the reference; only if it is on); maxima: `ratio_max`.
    """
    log_ratio_R = logprobs_R - behaviour_logprobs_R
    ratio_R = log_ratio_R.exp()
    fixed_R = ratio_R.detach()
    if config.importance_cap is None:
        clipped_R = ratio_R.clamp(1 - config.clip_low, 1 + config.clip_high)
        surrogate_R = (ratio_R * advantages_R).minimum(clipped_R * advantages_R)
        up_R = (fixed_R > 1 + config.clip_high) & (advantages_R > 0)
        down_R = (fixed_R < 1 - config.clip_low) & (advantages_R < 0)
        cut_R = up_R | down_R
    else:
        surrogate_R = fixed_R.clamp(max=config.importance_cap) * advantages_R * logprobs_R
        cut_R = fixed_R > config.importance_cap
    loss_sum = -(weights_R * surrogate_R).sum()
    sums = {
        "ratio": (weights_R * fixed_R).sum(),
        "clip_share": (weights_R * cut_R).sum(),
        "behaviour_kl": (weights_R * k3(-log_ratio_R.detach())).sum(),
    }
    if config.kl_coefficient > 0:
        assert reference_logprobs_R is not None, "kl_coefficient > 0 needs reference log-probs"
        kl_sum = (weights_R * k3(reference_logprobs_R - logprobs_R)).sum()
        loss_sum = loss_sum + config.kl_coefficient * kl_sum
        sums["kl"] = kl_sum.detach()
    largest = fixed_R.max() if len(fixed_R) else fixed_R.new_zeros(())
    return LossSum(loss_sum, sums, maxima={"ratio_max": largest})


def k3(log_ratio_R: Float[Tensor, "R"]) -> Float[Tensor, "R"]:
    """Schulman's unbiased, non-negative estimate of KL(p || q) from tokens drawn from p, given log q - log p of
    each."""
    return log_ratio_R.exp() - log_ratio_R - 1
