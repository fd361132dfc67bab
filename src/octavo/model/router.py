"""Which experts a token uses: scores, a bias for balance that is no parameter, node-limited groups.

DeepSeek-V3 (2024), section 2.1.2: sigmoid scores; choose by score + bias, gate by the score alone; a group of experts
counts as much as its two best. Before it (DeepSeek-V2, section 2.2; Qwen3-MoE, OLMoE): softmax over all experts, no
bias, a group counts as much as its best.

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

    bias_E: Tensor | None
    load_E: Tensor

    def __init__(self, width: int, config: MoEConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.experts, width))
        self.register_buffer("bias_E", torch.zeros(config.experts) if config.scoring == "sigmoid" else None)
        self.register_buffer("load_E", torch.zeros(config.experts), persistent=False)
        self.routing: Routing | None = None
        """The last training forward's decision, for load and balance loss; None outside training."""

    def forward(self, x_RD: Tensor) -> Routing:
        """Route tokens."""
        config = self.config
        logits_RE = F.linear(x_RD, self.weight)
        scores_RE = logits_RE.sigmoid() if config.scoring == "sigmoid" else logits_RE.softmax(dim=-1)
        experts_RK = self._choose(scores_RE.detach())
        gates_RK = scores_RE.gather(1, experts_RK)
        if config.normalize_gates:
            gates_RK = gates_RK / (gates_RK.sum(dim=1, keepdim=True) + 1e-20)
        routing = Routing(experts_RK, gates_RK * config.routed_scale, scores_RE)
        self.routing = routing if self.training and torch.is_grad_enabled() else None
        return routing

    def count_load(self) -> None:
        """Add the last training forward's decision to the load.

        To be called by whoever runs the model as a whole, once, and not in `forward`: activation recomputation calls
        that twice.
        """
        if self.routing is not None:
            self.load_E += torch.bincount(self.routing.experts_RK.flatten(), minlength=self.config.experts)

    def take_load(self) -> Tensor:
        """Tokens sent to each expert since the last call, [E] float32; starts counting anew."""
        load_E = self.load_E.clone()
        self.load_E.zero_()
        return load_E

    def update_bias(self, load_E: Tensor, rate: float) -> None:
        """Raise the bias of experts below the mean load, lower it above: b += rate sign(mean - load).

        Nothing to do with softmax scores, which have none: the balance loss alone spreads the load there.
        """
        if self.bias_E is not None:
            self.bias_E += rate * torch.sign(load_E.mean() - load_E)

    def _choose(self, scores_RE: Tensor) -> Tensor:
        config, best = self.config, 1
        if self.bias_E is not None:
            scores_RE, best = scores_RE + self.bias_E, 2
        if config.groups > 1:
            scores_RJe = scores_RE.unflatten(1, (config.groups, -1))
            group_scores_RJ = scores_RJe.topk(min(best, scores_RJe.shape[-1]), dim=-1).values.sum(dim=-1)
            kept = group_scores_RJ.topk(config.groups_per_token, dim=-1).indices
            dropped_RJ = torch.ones_like(group_scores_RJ, dtype=torch.bool).scatter_(1, kept, False)
            scores_RE = scores_RJe.masked_fill(dropped_RJ.unsqueeze(-1), -torch.inf).flatten(1)
        return scores_RE.topk(config.experts_per_token, dim=-1, sorted=False).indices
