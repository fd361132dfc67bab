"""One layer of the residual stream: attention, then feed-forward, each behind its norm."""

from torch import Tensor, nn

from octavo.model.attention import Rotation, build_attention
from octavo.model.cache import CacheStep
from octavo.model.config import ModelConfig
from octavo.model.experts import build_feed_forward
from octavo.model.layout import Layout
from octavo.model.norm import RMSNorm


class Block(nn.Module):
    """x + attention(norm x), then x + ffn(norm x)."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = build_attention(config)
        self.ffn_norm = RMSNorm(config.width, config.norm_eps)
        self.ffn = build_feed_forward(config, layer)

    def forward(self, x_RD: Tensor, rotation: Rotation, layout: Layout) -> Tensor:
        """Packed documents: [R, D] -> [R, D]."""
        x_RD = x_RD + self.attention(self.attention_norm(x_RD), rotation, layout)
        return x_RD + self.ffn(self.ffn_norm(x_RD))

    def extend(self, x_BTD: Tensor, rotation: Rotation, cached: tuple[Tensor, ...], step: CacheStep) -> Tensor:
        """Tokens appended to cached rows: [B, T, D] -> [B, T, D]."""
        x_BTD = x_BTD + self.attention.extend(self.attention_norm(x_BTD), rotation, cached, step)
        x_RD = x_BTD.flatten(0, 1)
        return (x_RD + self.ffn(self.ffn_norm(x_RD))).view_as(x_BTD)
