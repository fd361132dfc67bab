"""The config of sampling for reinforcement learning."""

from pydantic import Field

from octavo.config import Config


class RolloutConfig(Config):
    """How completions are drawn and which of them are learned from."""

    prompts_per_rollout: int = Field(gt=0)
    """Problems whose groups are learned from in one rollout, over all ranks."""
    samples_per_prompt: int = Field(default=8, ge=2)
    """Completions of each problem: the size of a group."""
    max_completion_tokens: int = Field(gt=0)
    micro_batch_tokens: int = Field(gt=0)
    """Tokens read at once when learning; smaller needs less memory and changes nothing else."""
    max_resamples: int = Field(default=1, ge=0)
    """Tied groups teach nothing: so many times they are replaced by groups of new problems."""
    tie_tolerance: float = Field(default=1e-6, ge=0)
    """A group whose rewards differ by no more is tied."""
    tied_patience: int = Field(default=5, gt=0)
    """After so many rollouts in a row without any group to learn from, warn ..."""
    tied_limit: int = Field(default=25, gt=0)
    """... and after so many stop."""
    overlong_tokens: int = Field(default=0, ge=0)
    """The last so many tokens before the limit are charged for, linearly (DAPO); 0: not at all."""
    overlong_penalty: float = Field(default=0.5, ge=0)
    """What a completion that reaches the limit loses."""
    updates_per_rollout: int = Field(default=1, gt=0)
    """Optimizer steps that the groups of a rollout are split into."""
    logged_rollouts: int = Field(default=4, ge=0)
    """Completions of each rollout that are written to rollouts.jsonl."""
