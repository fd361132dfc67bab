"""Which parameter goes to which optimizer, and one object that steps them all.

role       parameters                             kind muon      kind adamw
matrix     projections, each expert's matrices    Muon           AdamW
table      embedding, head, router                AdamW          AdamW
vector     norms, biases (1-D)                    AdamW, no decay in either
adapter    factors of LoRA                        AdamW, no decay in either: a factor alone has no scale to hold,
                                                  and decay would pull the model towards its base
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from octavo.config import Config
from octavo.errors import ConfigError
from octavo.optim.muon import Muon
from octavo.optim.small_adamw import SLOWEST_BETA, SmallAdamW

Role = Literal["matrix", "table", "vector", "adapter"]


class OptimizerConfig(Config):
    """Optimizer and learning rate; the schedule multiplies the rate."""

    kind: Literal["muon", "adamw"] = "muon"
    """muon: Muon for matrices, AdamW for the rest; adamw: AdamW for all."""
    learning_rate: float = Field(gt=0)
    """Peak rate. Muon's update is scaled to AdamW's size, so one rate can serve both."""
    matrix_learning_rate: float | None = Field(default=None, gt=0)
    """Peak rate of the matrices, where it should differ."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW: decay of the means of the gradient and of its square."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW: added to the root of the mean square."""
    adamw_state: Literal["float32", "bfloat16"] = "float32"
    """AdamW: what its two means are kept in. bfloat16 takes half the memory (4 bytes a parameter and not 8), and rounds
    them to 0.4%; betas may then be at most 0.99."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon: decay of the momentum."""
    newton_schulz_steps: int = Field(default=5, gt=0)
    """Muon: iterations of the orthogonalization."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled decay of matrices and tables; a step takes off rate x decay of the weight."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.adamw_state == "bfloat16" and max(self.betas) > SLOWEST_BETA:
            raise ValueError(f"betas must be at most {SLOWEST_BETA} where adamw_state is bfloat16, got {self.betas}")
        return self


class OptimizerSet:
    """Several torch optimizers stepped as one. `scale_rates` sets all rates from their peak, kept in each group."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        self._optimizers = dict(optimizers)
        for group in self.param_groups:
            group["peak_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers.values() for group in optimizer.param_groups]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are trained, in a fixed order."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def scale_rates(self, factor: float) -> None:
        """Set every learning rate to `factor` times its peak."""
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * factor

    def step(self) -> None:
        for optimizer in self._optimizers.values():
            optimizer.step()

    def zero_grad(self) -> None:
        for optimizer in self._optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError if the state is that of other optimizers or shapes (torch)."""
        if state.keys() != self._optimizers.keys():
            raise ValueError(f"state of optimizers {sorted(state)}, expected {sorted(self._optimizers)}")
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> OptimizerSet:
    """Sort the model's trainable parameters by role. Raises ConfigError if there are none."""
    by_role: dict[tuple[Role, int], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_role.setdefault((role_of(name, parameter), parts_of(name)), []).append(parameter)
    if not by_role:
        raise ConfigError("nothing to train: no parameter of the model requires a gradient")
    muon_groups, adamw_groups = [], []
    for (role, parts), parameters in by_role.items():
        rate = config.matrix_learning_rate if role == "matrix" else None
        decay = config.weight_decay if role in ("matrix", "table") else 0.0
        group = {"params": parameters, "lr": rate or config.learning_rate, "weight_decay": decay}
        if role == "matrix" and config.kind == "muon":
            muon_groups.append(group | {"parts": parts})
        else:
            adamw_groups.append(group)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if muon_groups:
        optimizers["muon"] = Muon(
            muon_groups, config.learning_rate, config.momentum, newton_schulz_steps=config.newton_schulz_steps
        )
    if adamw_groups and config.adamw_state == "bfloat16":
        optimizers["adamw"] = SmallAdamW(adamw_groups, config.learning_rate, config.betas, config.epsilon)
    elif adamw_groups:
        # On the reference machine the fused step is 3 to 14 times faster than the others.
        optimizers["adamw"] = torch.optim.AdamW(adamw_groups, betas=config.betas, eps=config.epsilon, fused=True)
    return OptimizerSet(optimizers)


def role_of(name: str, parameter: Tensor) -> Role:
    """The role of a parameter of `model.Transformer`, by its name and dimensions."""
    if parameter.ndim < 2:
        return "vector"
    parents = name.split(".")
    if parents[-1].startswith("lora_"):
        return "adapter"
    return "table" if parents[0] in ("embed", "head") or "router" in parents else "matrix"


def parts_of(name: str) -> int:
    """How many matrices the parameter holds side by side: gate and up of the routed experts share one tensor."""
    return 2 if name.rsplit(".", 1)[-1].startswith("gate_up") else 1
