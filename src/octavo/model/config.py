"""The one description of an architecture: attention (MLA or GQA), dense or mixture of experts, rotation, MTP.

What it holds is what is computed, not whose model it is: two families that compute alike have equal configs.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from octavo.config import Config

Positive = Annotated[int, Field(gt=0)]


class LinearRopeConfig(Config):
    """Position interpolation (Chen et al. 2023): every frequency is divided by the factor."""

    kind: Literal["linear"] = "linear"
    factor: float = Field(ge=1)
    """Context length over the length of pretraining."""


class Llama3RopeConfig(Config):
    """Llama 3.1's scaling: slow frequencies are divided by the factor, fast ones kept, those between blended."""

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1)
    low_freq_factor: float = Field(gt=0)
    """Wavelengths above original_max_positions / low_freq_factor are stretched ..."""
    high_freq_factor: float
    """... and those below original_max_positions / high_freq_factor are kept."""
    original_max_positions: Positive
    """Context length of pretraining, tokens."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor ({self.high_freq_factor}) must exceed low_freq_factor ({self.low_freq_factor})"
            )
        return self


class YarnConfig(Config):
    """YaRN context extension (Peng et al. 2023), with DeepSeek's two ways of setting the temperature of attention."""

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1)
    """Context length over the length of pretraining."""
    original_max_positions: Positive
    """Context length of pretraining, tokens."""
    beta_fast: float = Field(default=32.0, gt=0)
    """Frequencies that turn more often than this within the original context are kept ..."""
    beta_slow: float = Field(default=1.0, gt=0)
    """... and those that turn less often than this are divided by the factor."""
    truncate: bool = True
    """Where that blend begins and ends is rounded to whole dimensions."""
    attention_factor: float | None = Field(default=None, gt=0)
    """Amplitude of the rotation; None: m(mscale) / m(mscale_all_dim), m(s) = 0.1 s ln(factor) + 1, or m(1) without."""
    mscale: float | None = Field(default=None, gt=0)
    mscale_all_dim: float | None = Field(default=None, gt=0)
    """With MLA, scores are also scaled by m(mscale_all_dim) squared. DeepSeek sets both (V2 0.707, V3 1)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.mscale is None) != (self.mscale_all_dim is None):
            # DeepSeek's own code and transformers read one alone differently.
            raise ValueError("mscale and mscale_all_dim must be set together, or neither")
        return self


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
    """Grouped-query attention (Ainslie et al. 2023), as in Llama, Mistral, Qwen and OLMoE."""

    kind: Literal["gqa"] = "gqa"
    heads: Positive
    kv_heads: Positive
    head_dim: Positive | None = None
    """None: width / heads."""
    qkv_bias: bool = False
    """Bias on the query, key and value projections (Qwen2)."""
    qk_norm: Literal["head", "projection"] | None = None
    """RMSNorm on queries and keys before RoPE: over each head (Qwen3), or over all heads at once (OLMoE)."""
    sliding_window: Positive | None = None
    """A token sees this many tokens, itself included (Mistral); None: all before it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        return self


class MoEConfig(Config):
    """Routed and shared experts (DeepSeek-V3, section 2.1.2)."""

    scoring: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid: chosen with a bias that keeps the load in balance, groups by their two best experts (DeepSeek-V3);
    softmax: no bias, groups by their best expert (DeepSeek-V2, Qwen3-MoE, OLMoE)."""
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
    """Factor on the gates."""
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
    rope_theta: float = Field(default=10000.0, gt=1)
    rope_scaling: Annotated[LinearRopeConfig | Llama3RopeConfig | YarnConfig, Field(discriminator="kind")] | None = None
    """How a context longer than that of pretraining is reached; None: not."""
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

    @property
    def sliding_window(self) -> int | None:
        """How many tokens a token sees, itself included; None: all before it."""
        return self.attention.sliding_window if isinstance(self.attention, GQAConfig) else None

    def is_sparse(self, layer: int) -> bool:
        """Whether that layer (0-based; MTP layers follow the last) has experts."""
        return self.moe is not None and layer >= self.moe.leading_dense_layers
