"""RMSNorm (Zhang and Sennrich 2019)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octavo.model import fused
from octavo.native import training as native


class RMSNorm(nn.Module):
    """x / rms(x) * weight, over the last axis."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and native.serves(x, self.weight):
            return fused.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
