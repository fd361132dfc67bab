"""Multi-head latent attention (DeepSeek-V2, section 2.1) and grouped-query attention (Ainslie et al. 2023).

Each has two ways through: `forward` over packed documents (training, scoring), and `extend`, which appends tokens to
cached sequences (prefill and decoding). They agree to rounding; tests hold it.

Shapes: `R` flat packed tokens, `S` documents, `L` tokens of a document or of the cache, `B` rows, `T` new tokens,
`D` width, `N` heads, `H` head size (nope + rope), `U` kv heads, `C` kv rank, `P` rope size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from octavo.model import fused
from octavo.model.cache import CacheStep
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig, YarnConfig
from octavo.model.layout import Layout
from octavo.model.norm import RMSNorm
from octavo.model.rope import rotate_halves, rotate_neighbours, yarn_score_scale
from octavo.native import training as native

# The released models normalize their latents with this, whatever the rest of the model uses.
LATENT_NORM_EPS = 1e-6

# With a sliding window, queries of a long document are taken in runs of so many tokens: each sees its own keys and a
# window before them, so that neither work nor mask grows with the square of the document.
_RUN = 512

Rotation = tuple[Tensor, Tensor]


class MLA(nn.Module):
    """Attention over compressed keys and values; only c and the shared rotated key are cached."""

    def __init__(self, config: ModelConfig, attention: MLAConfig):
        super().__init__()
        self.heads, self.nope, self.rope = attention.heads, attention.nope_dim, attention.rope_dim
        self.rank, self.v_dim = attention.kv_rank, attention.v_dim
        width, query = config.width, attention.heads * config.head_dim
        self.scale = config.head_dim**-0.5
        if isinstance(config.rope_scaling, YarnConfig):
            self.scale *= yarn_score_scale(config.rope_scaling)
        if attention.q_rank is None:
            self.q = nn.Linear(width, query, bias=False)
        else:
            self.q = nn.Sequential(
                nn.Linear(width, attention.q_rank, bias=False),
                RMSNorm(attention.q_rank, LATENT_NORM_EPS),
                nn.Linear(attention.q_rank, query, bias=False),
            )
        self.kv_a = nn.Linear(width, self.rank + self.rope, bias=False)
        self.kv_norm = RMSNorm(self.rank, LATENT_NORM_EPS)
        self.kv_b = nn.Linear(self.rank, self.heads * (self.nope + self.v_dim), bias=False)
        self.o = nn.Linear(self.heads * self.v_dim, width, bias=False)

    def forward(self, x_RD: Tensor, rotation: Rotation, layout: Layout) -> Tensor:
        """Packed documents: x [R, D] -> [R, D]."""
        if native.serves(x_RD, self.o.weight):
            q_RNH = self.q(x_RD).unflatten(-1, (self.heads, -1))
            c_RC, k_rope_RP = self.kv_a(x_RD).split([self.rank, self.rope], dim=-1)
            kv_RNX = self.kv_b(self.kv_norm(c_RC)).unflatten(-1, (self.heads, -1))
            out_RNV = fused.attention(q_RNH, k_rope_RP.unsqueeze(1), kv_RNX, rotation, layout, self.scale, halves=False)
            return self.o(out_RNV.flatten(-2))
        q_RNH = self._queries(x_RD, rotation)
        k_RNH, v_RNV = self._expand(self._latent(x_RD, rotation))
        out_RNV = layout.per_document(self._attend_causal, q_RNH, k_RNH, v_RNV)
        return self.o(out_RNV.flatten(-2))

    def extend(self, x_BTD: Tensor, rotation: Rotation, cached: tuple[Tensor, ...], step: CacheStep) -> Tensor:
        """Append to the cached rows and attend to all they hold: x [B, T, D] -> [B, T, D]."""
        (latent_BLC,) = cached
        latent_BLC[step.rows_B1, step.slots_BT] = self._latent(x_BTD, rotation)
        latent_BLC = latent_BLC[:, : step.longest]
        q_BTNH = self._queries(x_BTD, rotation)
        attend = self._attend_absorbed if x_BTD.shape[1] == 1 else self._attend_expanded
        return self.o(attend(q_BTNH, latent_BLC, step.hidden_BTL).flatten(-2))

    def _queries(self, x: Tensor, rotation: Rotation) -> Tensor:
        nope, rope = self.q(x).unflatten(-1, (self.heads, -1)).split([self.nope, self.rope], dim=-1)
        return torch.cat((nope, rotate_neighbours(rope, *rotation)), dim=-1)

    def _latent(self, x: Tensor, rotation: Rotation) -> Tensor:
        """x [..., D] -> normalized c and rotated key, [..., C + P]: all that has to be remembered of a token."""
        c, k_pe = self.kv_a(x).split([self.rank, self.rope], dim=-1)
        k_pe = rotate_neighbours(k_pe.unsqueeze(-2), *rotation).squeeze(-2)
        return torch.cat((self.kv_norm(c), k_pe), dim=-1)

    def _expand(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """latent [..., C + P] -> keys [..., N, H], values [..., N, V]."""
        c, k_pe = latent.split([self.rank, self.rope], dim=-1)
        k_nope, v = self.kv_b(c).unflatten(-1, (self.heads, -1)).split([self.nope, self.v_dim], dim=-1)
        k_pe = k_pe.unsqueeze(-2).expand(*k_nope.shape[:-1], self.rope)
        return torch.cat((k_nope, k_pe), dim=-1), v

    def _attend_causal(self, q_SLNH: Tensor, k_SLNH: Tensor, v_SLNV: Tensor) -> Tensor:
        # The fast kernels want one head size for all three.
        v_SLNH = F.pad(v_SLNV, (0, q_SLNH.shape[-1] - self.v_dim)) if self.v_dim < q_SLNH.shape[-1] else v_SLNV
        q, k, v = (x.transpose(1, 2) for x in (q_SLNH, k_SLNH, v_SLNH))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
        return out.transpose(1, 2)[..., : self.v_dim]

    def _attend_expanded(self, q_BTNH: Tensor, latent_BLC: Tensor, hidden_BTL: Tensor) -> Tensor:
        k_BLNH, v_BLNV = self._expand(latent_BLC)
        q, k, v = (x.transpose(1, 2) for x in (q_BTNH, k_BLNH, v_BLNV))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden_BTL.unsqueeze(1), scale=self.scale)
        return out.transpose(1, 2)

    def _attend_absorbed(self, q_B1NH: Tensor, latent_BLC: Tensor, hidden_B1L: Tensor) -> Tensor:
        """Decoding: W_kvb goes into the query and the output, so that attention runs on the latent itself."""
        w_NHC = self.kv_b.weight.view(self.heads, self.nope + self.v_dim, self.rank)
        w_k_NHC, w_v_NVC = w_NHC.split([self.nope, self.v_dim], dim=1)
        q_NBH, rope_BNP = q_B1NH[..., : self.nope].squeeze(1).transpose(0, 1), q_B1NH[..., self.nope :].squeeze(1)
        q_BNC = torch.cat(((q_NBH @ w_k_NHC).transpose(0, 1), rope_BNP), dim=-1)
        hidden_BNL = hidden_B1L.expand(-1, self.heads, -1)
        scores_BNL = torch.baddbmm(hidden_BNL, q_BNC, latent_BLC.transpose(1, 2), alpha=self.scale)
        c_BNC = scores_BNL.softmax(dim=-1) @ latent_BLC[..., : self.rank]
        return (c_BNC.transpose(0, 1) @ w_v_NVC.transpose(1, 2)).transpose(0, 1).unsqueeze(1)


class GQA(nn.Module):
    """Query heads share key and value heads in groups; optional biases (Qwen2), norms of queries and keys over each
    head (Qwen3) or over all heads (OLMoE), and a sliding window (Mistral)."""

    def __init__(self, config: ModelConfig, attention: GQAConfig):
        super().__init__()
        head = config.head_dim
        self.heads, self.kv_heads, self.scale = attention.heads, attention.kv_heads, head**-0.5
        self.qk_norm, self.window = attention.qk_norm, attention.sliding_window
        self.q = nn.Linear(config.width, self.heads * head, bias=attention.qkv_bias)
        self.k = nn.Linear(config.width, self.kv_heads * head, bias=attention.qkv_bias)
        self.v = nn.Linear(config.width, self.kv_heads * head, bias=attention.qkv_bias)
        if self.qk_norm:
            whole = self.qk_norm == "projection"
            self.q_norm = RMSNorm(self.heads * head if whole else head, config.norm_eps)
            self.k_norm = RMSNorm(self.kv_heads * head if whole else head, config.norm_eps)
        self.o = nn.Linear(self.heads * head, config.width, bias=False)

    def forward(self, x_RD: Tensor, rotation: Rotation, layout: Layout) -> Tensor:
        """Packed documents: x [R, D] -> [R, D]."""
        if native.serves(x_RD, self.o.weight):
            out_RNV = fused.attention(
                *self._heads(x_RD), rotation, layout, self.scale, halves=True, window=self.window or 0
            )
            return self.o(out_RNV.flatten(-2))
        return self.o(layout.per_document(self._attend_causal, *self._project(x_RD, rotation)).flatten(-2))

    def extend(self, x_BTD: Tensor, rotation: Rotation, cached: tuple[Tensor, ...], step: CacheStep) -> Tensor:
        """Append to the cached rows and attend to all they hold: x [B, T, D] -> [B, T, D]."""
        q_BTNH, *new = self._project(x_BTD, rotation)
        for tensor_BULH, x_BTUH in zip(cached, new, strict=True):
            tensor_BULH.transpose(1, 2)[step.rows_B1, step.slots_BT] = x_BTUH
        k_BULH, v_BULH = (tensor[:, :, step.first : step.longest] for tensor in cached)
        # Heads that share a key are neighbours: [B, U, (N / U) T, H], so that one product serves them all.
        q_BUGH = q_BTNH.transpose(1, 2).unflatten(1, (self.kv_heads, -1)).flatten(2, 3)
        hidden = step.hidden_BTL.unsqueeze(1).repeat(1, 1, self.heads // self.kv_heads, 1)
        out_BUGH = F.scaled_dot_product_attention(q_BUGH, k_BULH, v_BULH, attn_mask=hidden, scale=self.scale)
        out_BNTH = out_BUGH.unflatten(2, (-1, x_BTD.shape[1])).flatten(1, 2)
        return self.o(out_BNTH.transpose(1, 2).flatten(-2))

    def _project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self._heads(x)
        return rotate_halves(q, *rotation), rotate_halves(k, *rotation), v

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [..., N, H], keys and values [..., U, H], not rotated."""
        q, k = self.q(x), self.k(x)
        if self.qk_norm == "projection":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = q.unflatten(-1, (self.heads, -1)), k.unflatten(-1, (self.kv_heads, -1))
        if self.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, self.v(x).unflatten(-1, (self.kv_heads, -1))

    def _attend_causal(self, q_SLNH: Tensor, k_SLUH: Tensor, v_SLUH: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q_SLNH, k_SLUH, v_SLUH))
        if self.window is not None and q.shape[2] > self.window:
            return self._attend_window(q, k, v, self.window).transpose(1, 2)
        grouped = self.heads != self.kv_heads
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale, enable_gqa=grouped)
        return out.transpose(1, 2)

    def _attend_window(self, q_SNLH: Tensor, k_SULH: Tensor, v_SULH: Tensor, window: int) -> Tensor:
        """Causal attention to the last `window` tokens: [S, N, L, H]."""
        grouped = self.heads != self.kv_heads
        length = q_SNLH.shape[2]
        outputs = []
        for start in range(0, length, _RUN):
            stop, first = min(start + _RUN, length), max(start - window + 1, 0)
            queries, keys = (torch.arange(begin, stop, device=q_SNLH.device) for begin in (start, first))
            back = queries[:, None] - keys
            out = F.scaled_dot_product_attention(
                q_SNLH[:, :, start:stop],
                k_SULH[:, :, first:stop],
                v_SULH[:, :, first:stop],
                attn_mask=(back >= 0) & (back < window),
                scale=self.scale,
                enable_gqa=grouped,
            )
            outputs.append(out)
        return torch.cat(outputs, dim=2)


def build_attention(config: ModelConfig) -> MLA | GQA:
    """The attention that the config names."""
    attention = config.attention
    return MLA(config, attention) if isinstance(attention, MLAConfig) else GQA(config, attention)
