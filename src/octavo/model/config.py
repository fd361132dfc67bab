"""The one description of an architecture: DeepSeek-V3 (MLA, mixture of experts, MTP) and the dense GQA family."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from octavo.config import Config

Positive = Annotated[int, Field(gt=0)]


class YarnConfig(Config):
    """YaRN context extension (Peng et al. 2023), as DeepSeek-V3 uses it."""

    factor: float = Field(gt=1)
    """Context length over the length of pretraining."""
    original_max_positions: Positive
    """Context length of pretraining, tokens."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 1.0
    """Temperature of attention: scores are scaled by (0.1 mscale_all_dim ln(factor) + 1) squared."""


class MLAConfig(Config):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): only `kv_rank + rope_dim` values are cached a token."""

    kind: Literal["mla"] = "mla"
    heads: Positive
    kv_rank: Positive
    """Width of the compressed keys and values c."""
    q_rank: Positive | None = None
    """Width of the compressed query; None: a plain projection."""
    nope_dim: Positive
    """Head size of the part of query and key that carries no position."""
    rope_dim: Positive
    """Head size of the part that carries the position; its key is shared by all heads."""
    v_dim: Positive
    """Head size of the values."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rope_dim % 2:
            raise ValueError(f"rope_dim must be even, got {self.rope_dim}")
        return self


class GQAConfig(Config):
    """Grouped-query attention (Ainslie et al. 2023), as in Llama, Qwen2 and Qwen3."""

    kind: Literal["gqa"] = "gqa"
    heads: Positive
    kv_heads: Positive
    head_dim: Positive | None = None
    """None: width / heads."""
    qkv_bias: bool = False
    """Bias on the query, key and value projections (Qwen2)."""
    qk_norm: bool = False
    """RMSNorm on each head's query and key before RoPE (Qwen3)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        return self


class MoEConfig(Config):
    """Routed and shared experts (DeepSeek-V3, section 2.1.2)."""

    experts: Positive
    experts_per_token: Positive
    expert_width: Positive
    """Hidden width of one expert."""
    shared_experts: Annotated[int, Field(ge=0)] = 1
    """Experts that every token uses, as one SwiGLU of shared_experts * expert_width."""
    leading_dense_layers: Annotated[int, Field(ge=0)] = 1
    """The first layers use a dense SwiGLU of `ffn_width` instead."""
    groups: Positive = 1
    """Experts are split into this many groups of neighbours (node-limited routing) ..."""
    groups_per_token: Positive = 1
    """... of which a token may use this many."""
    routed_scale: float = 1.0
    """Factor on the normalised gates."""
    normalize_gates: bool = True
    """Gates of the chosen experts sum to 1 before scaling."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token ({self.experts_per_token}) exceeds experts ({self.experts})")
        if self.experts % self.groups:
            raise ValueError(f"groups ({self.groups}) must divide experts ({self.experts})")
        if self.groups_per_token > self.groups:
            raise ValueError(f"groups_per_token ({self.groups_per_token}) exceeds groups ({self.groups})")
        reachable = self.experts // self.groups * self.groups_per_token
        if self.experts_per_token > reachable:
            raise ValueError(f"experts_per_token ({self.experts_per_token}) exceeds the {reachable} of the kept groups")
        return self


class ModelConfig(Config):
    """One decoder-only transformer. Shapes that cannot be built raise ConfigError."""

    vocab_size: Positive
    width: Positive
    """Width of the residual stream, D."""
    layers: Positive
    ffn_width: Positive
    """Hidden width of the dense SwiGLU."""
    attention: Annotated[MLAConfig | GQAConfig, Field(discriminator="kind")]
    moe: MoEConfig | None = None
    """None: every layer is dense."""
    mtp_layers: Annotated[int, Field(ge=0)] = 0
    """Depth of multi-token prediction; used in training only."""
    max_positions: Positive = 4096
    """Longest sequence, tokens."""
    rope_theta: float = Field(default=10000.0, gt=0)
    yarn: YarnConfig | None = None
    norm_eps: float = Field(default=1e-6, gt=0)
    tie_embeddings: bool = False
    """The output head is the embedding."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        attention = self.attention
        if isinstance(attention, GQAConfig):
            if attention.head_dim is None and self.width % attention.heads:
                raise ValueError(f"attention.heads ({attention.heads}) must divide width ({self.width})")
            if self.head_dim % 2:
                raise ValueError(f"the head size must be even for RoPE, got {self.head_dim}")
        if self.moe and (self.width % 4 or self.moe.expert_width % 4):
            # Grouped matrix products want rows that begin at multiples of 16 bytes.
            raise ValueError(
                f"width ({self.width}) and moe.expert_width ({self.moe.expert_width}) must be multiples of 4"
            )
        if self.moe and self.moe.leading_dense_layers > self.layers:
            raise ValueError(
                f"moe.leading_dense_layers ({self.moe.leading_dense_layers}) exceeds layers ({self.layers})"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Size of a query head (for MLA: nope + rope)."""
        attention = self.attention
        if isinstance(attention, MLAConfig):
            return attention.nope_dim + attention.rope_dim
        return attention.head_dim or self.width // attention.heads

    def is_sparse(self, layer: int) -> bool:
        """Whether that layer (0-based; MTP layers follow the last) has experts."""
        return self.moe is not None and layer >= self.moe.leading_dense_layers
