"""Multi-token prediction (DeepSeek-V3, section 2.2): one more block that predicts the token after the next.

Shapes: `R` flat packed tokens, `D` width.
"""

import torch
from torch import Tensor, nn

from octavo.model.attention import Rotation
from octavo.model.block import Block
from octavo.model.config import ModelConfig
from octavo.model.layout import Layout
from octavo.model.norm import RMSNorm


class MTP(nn.Module):
    """h' = norm(block(M [norm(embedding of the next token); norm(h)])).

    The embedding comes first, as in the released weights (the paper writes the hidden state first), and h is taken
    behind the main model's final norm, as inference code for those weights does.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.embed_norm = RMSNorm(config.width, config.norm_eps)
        self.hidden_norm = RMSNorm(config.width, config.norm_eps)
        self.project = nn.Linear(2 * config.width, config.width, bias=False)
        self.block = Block(config, layer)
        self.norm = RMSNorm(config.width, config.norm_eps)

    def forward(self, hidden_RD: Tensor, next_embeddings_RD: Tensor, rotation: Rotation, layout: Layout) -> Tensor:
        """Hidden states at position t and embeddings of token t + 1 -> hidden states that predict token t + 2."""
        joined = torch.cat((self.embed_norm(next_embeddings_RD), self.hidden_norm(hidden_RD)), dim=-1)
        return self.norm(self.block(self.project(joined), rotation, layout))
