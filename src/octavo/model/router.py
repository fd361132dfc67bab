"""Which experts a token uses: sigmoid scores, a bias for balance that is no parameter, node-limited groups.

DeepSeek-V3 (2024), section 2.1.2: choose by score + bias, gate by the score alone.

Shapes: `R` tokens, `D` width, `E` experts, `K` chosen experts, `J` groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octavo.model.config import MoEConfig


@dataclass(frozen=True)
class Routing:
    """The decision for R tokens: chosen experts, their gates (with gradient), and all scores."""

    experts_RK: Tensor
    gates_RK: Tensor
    scores_RE: Tensor


class Router(nn.Module):
    """Owns the routing decision and its statistics."""

    bias_E: Tensor
    load_E: Tensor

    def __init__(self, width: int, config: MoEConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.experts, width))
        self.register_buffer("bias_E", torch.zeros(config.experts))
        self.register_buffer("load_E", torch.zeros(config.experts), persistent=False)
        self.routing: Routing | None = None
        """The last training forward's decision, for the balance loss; None outside training."""

    def forward(self, x_RD: Tensor) -> Routing:
        """Route tokens. While training with gradients, also counts the load of each expert."""
        config = self.config
        scores_RE = F.linear(x_RD, self.weight).sigmoid()
        experts_RK = self._choose(scores_RE.detach() + self.bias_E)
        gates_RK = scores_RE.gather(1, experts_RK)
        if config.normalize_gates:
            gates_RK = gates_RK / (gates_RK.sum(dim=1, keepdim=True) + 1e-20)
        routing = Routing(experts_RK, gates_RK * config.routed_scale, scores_RE)
        training = self.training and torch.is_grad_enabled()
        self.routing = routing if training else None
        if training and not _recomputing():
            self.load_E += torch.bincount(experts_RK.flatten(), minlength=config.experts)
        return routing

    def take_load(self) -> Tensor:
        """Tokens sent to each expert since the last call, [E] float32; starts counting anew."""
        load_E = self.load_E.clone()
        self.load_E.zero_()
        return load_E

    def update_bias(self, load_E: Tensor, rate: float) -> None:
        """Raise the bias of experts below the mean load, lower it above: b += rate sign(mean - load)."""
        self.bias_E += rate * torch.sign(load_E.mean() - load_E)

    def _choose(self, biased_RE: Tensor) -> Tensor:
        config = self.config
        if config.groups > 1:
            biased_RJe = biased_RE.unflatten(1, (config.groups, -1))
            group_scores_RJ = biased_RJe.topk(min(2, biased_RJe.shape[-1]), dim=-1).values.sum(dim=-1)
            kept = group_scores_RJ.topk(config.groups_per_token, dim=-1).indices
            dropped_RJ = torch.ones_like(group_scores_RJ, dtype=torch.bool).scatter_(1, kept, False)
            biased_RE = biased_RJe.masked_fill(dropped_RJ.unsqueeze(-1), -torch.inf).flatten(1)
        return biased_RE.topk(config.experts_per_token, dim=-1, sorted=False).indices


def _recomputing() -> bool:
    """Whether a backward pass runs this forward again (`torch.utils.checkpoint` with use_reentrant=False)."""
    return torch._C._current_graph_task_id() != -1
