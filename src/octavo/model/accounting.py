"""What a model costs: parameters total and active, FLOPs a token, bytes of cache. The only owner of these numbers.

A multiply-add is two FLOPs. Counted are matrix products and attention; norms, rotations and activations are below one
per cent. Training is three times the forward pass (the backward pass computes two products for each of the forward's).
"""

from dataclasses import dataclass

from octavo.model.config import MLAConfig, ModelConfig


@dataclass(frozen=True)
class Accounting:
    """Costs of one architecture. MTP layers count in training only."""

    total_parameters: int
    """All parameters, MTP layers apart."""
    active_parameters: int
    """Parameters that one token uses: of the routed experts, those chosen; of the input embedding, its one row."""
    mtp_parameters: int
    attention_width: int
    """Values multiplied for each pair of tokens in scores and weighted sum: layers * heads * (query + value size)."""
    product_parameters: int
    """Parameters in matrix products for a token's forward pass (active, with the head, without the embedding)."""
    mtp_product_parameters: int
    mtp_attention_width: int
    cached_values_per_token: int
    sliding_window: int | None
    """Tokens that attention sees at most; None: all."""

    @staticmethod
    def of(config: ModelConfig) -> "Accounting":
        """Count from the config alone; nothing is built."""
        attention, norms = _attention(config), 2 * config.width
        total = active = product = 0
        for layer in range(config.layers):
            ffn_total, ffn_active = _feed_forward(config, layer)
            total += attention.parameters + norms + ffn_total
            active += attention.parameters + norms + ffn_active
            product += attention.products + ffn_active
        table = config.vocab_size * config.width
        # The head reads its whole table for each token, the embedding one row.
        total += (1 if config.tie_embeddings else 2) * table + config.width
        active += table + config.width + (0 if config.tie_embeddings else config.width)
        mtp_total = mtp_product = 0
        for depth in range(config.mtp_layers):
            ffn_total, ffn_active = _feed_forward(config, config.layers + depth)
            join = 2 * config.width * config.width
            mtp_total += attention.parameters + norms + ffn_total + join + 3 * config.width
            mtp_product += attention.products + ffn_active + join + table
        return Accounting(
            total_parameters=total,
            active_parameters=active,
            mtp_parameters=mtp_total,
            attention_width=config.layers * attention.pair_values,
            product_parameters=product + table,
            mtp_product_parameters=mtp_product,
            mtp_attention_width=config.mtp_layers * attention.pair_values,
            cached_values_per_token=config.layers * attention.cached_values,
            sliding_window=config.sliding_window,
        )

    def forward_flops_per_token(self, context: float) -> float:
        """FLOPs of one token's forward pass that attends to `context` tokens (on average; at most a sliding window)."""
        return 2 * self.product_parameters + 2 * self.attention_width * self._seen(context)

    def training_flops_per_token(self, context: float) -> float:
        """FLOPs of one token's forward and backward pass, MTP included; `context` as above."""
        mtp = 2 * self.mtp_product_parameters + 2 * self.mtp_attention_width * self._seen(context)
        return 3 * (self.forward_flops_per_token(context) + mtp)

    def cache_bytes_per_token(self, bytes_per_value: int = 4) -> int:
        """Bytes that attention remembers of one token."""
        return self.cached_values_per_token * bytes_per_value

    def _seen(self, context: float) -> float:
        return context if self.sliding_window is None else min(context, self.sliding_window)


@dataclass(frozen=True)
class _AttentionCost:
    parameters: int
    products: int
    pair_values: int
    cached_values: int


def _attention(config: ModelConfig) -> _AttentionCost:
    attention, width, head = config.attention, config.width, config.head_dim
    if isinstance(attention, MLAConfig):
        query, rank = attention.heads * head, attention.q_rank
        products = width * query if rank is None else width * rank + rank * query
        products += width * (attention.kv_rank + attention.rope_dim)
        products += attention.kv_rank * attention.heads * (attention.nope_dim + attention.v_dim)
        products += attention.heads * attention.v_dim * width
        pairs = attention.heads * (head + attention.v_dim)
        norms = attention.kv_rank + (rank or 0)
        return _AttentionCost(products + norms, products, pairs, attention.kv_rank + attention.rope_dim)
    query, keys = attention.heads * head, attention.kv_heads * head
    products = width * (query + 2 * keys) + query * width
    bias = query + 2 * keys if attention.qkv_bias else 0
    norms = {None: 0, "head": 2 * head, "projection": query + keys}[attention.qk_norm]
    return _AttentionCost(products + bias + norms, products, attention.heads * 2 * head, 2 * keys)


def _feed_forward(config: ModelConfig, layer: int) -> tuple[int, int]:
    """Total and active parameters of that layer's feed-forward part (the router included, its bias not)."""
    moe = config.moe
    if moe is None or not config.is_sparse(layer):
        dense = 3 * config.width * config.ffn_width
        return dense, dense
    expert = 3 * config.width * moe.expert_width
    always = moe.shared_experts * expert + config.width * moe.experts
    return always + moe.experts * expert, always + moe.experts_per_token * expert
