"""What llama.cpp calls the tensors that Hugging Face calls otherwise. One table serves reading and writing."""

import re

MODEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# Within a block (blk.N.) and a layer (model.layers.N.). Tensors of these are alike but for Llama's queries and keys.
BLOCK = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    **{f"attn_{part}.{leaf}": f"self_attn.{part}_proj.{leaf}" for part in "qkv" for leaf in ("weight", "bias")},
    "attn_output.weight": "self_attn.o_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_q_a.weight": "self_attn.q_a_proj.weight",
    "attn_q_a_norm.weight": "self_attn.q_a_layernorm.weight",
    "attn_q_b.weight": "self_attn.q_b_proj.weight",
    "attn_kv_a_mqa.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attn_kv_a_norm.weight": "self_attn.kv_a_layernorm.weight",
    "attn_kv_b.weight": "self_attn.kv_b_proj.weight",
    **{f"ffn_{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_shexp.weight": f"mlp.shared_experts.{part}_proj.weight" for part in ("gate", "up", "down")},
    "ffn_gate_inp.weight": "mlp.gate.weight",
    "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
    "nextn.eh_proj.weight": "eh_proj.weight",
    "nextn.enorm.weight": "enorm.weight",
    "nextn.hnorm.weight": "hnorm.weight",
    "nextn.shared_head_norm.weight": "shared_head.norm.weight",
}
# All experts of a layer in one tensor.
EXPERTS = {f"ffn_{part}_exps.weight": f"{part}_proj.weight" for part in ("gate", "up", "down")}
EXPERTS_GATE_UP = "ffn_gate_up_exps.weight"
# W_kvb as latent attention wants it when decoding: its keys (transposed) and its values by head.
KEYS_UP, VALUES_UP, BOTH_UP = "attn_k_b.weight", "attn_v_b.weight", "attn_kv_b.weight"
# What layers of multi-token prediction repeat of the main model.
REPEATED = frozenset({"nextn.embed_tokens.weight", "nextn.shared_head_head.weight"})

IN_BLOCK = re.compile(r"blk\.(\d{1,9})\.(.+)")
IN_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
IN_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(.+)")
