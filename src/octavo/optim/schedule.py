"""Warmup-stable-decay: the learning rate as a pure function of the step (Hu et al. 2024, MiniCPM, arXiv 2404.06395)."""

from typing import Literal

from pydantic import Field

from octavo.config import Config


class ScheduleConfig(Config):
    """How the learning rate goes over the steps."""

    kind: Literal["wsd", "constant"] = "wsd"
    """wsd: warm up, hold, decay at the end; constant: warm up, then hold."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear rise; the first step already has 1 / warmup_steps of the rate."""
    decay_share: float = Field(default=0.2, ge=0, le=1)
    """Share of all steps, at the end, over which a wsd schedule falls linearly."""
    final_factor: float = Field(default=0.0, ge=0, le=1)
    """What a wsd schedule falls to, as a share of the rate. 0 is reached one step after the last, so no step is
    lost."""

    def factor(self, step: int, total_steps: int) -> float:
        """Factor on the learning rate of 0-based `step` of `total_steps`."""
        decay_share = self.decay_share if self.kind == "wsd" else 0.0
        return learning_rate_factor(step, total_steps, self.warmup_steps, decay_share, self.final_factor)


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int, decay_share: float, final: float) -> float:
    """The factor, in [0, 1]: min of the linear rise, 1, and the linear fall to `final` at step `total_steps`."""
    rise = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    decay_steps = decay_share * total_steps
    left = (total_steps - step) / decay_steps if decay_steps else 1.0
    fall = final + (1.0 - final) * max(0.0, min(1.0, left))
    return min(rise, fall)
