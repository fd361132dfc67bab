"""Where each tensor of ours stands in the Hugging Face layout, as views: one table serves reading and writing.

Each entry maps a name of the released layout to a view of our own storage. Writing copies the view out, reading copies
into it, so the two directions cannot disagree. The families differ in what they have, not in what they call it, so one
table serves all of them.

Shapes: `E` experts, `D` width, `F` hidden width of an expert.
"""

import re

from torch import Tensor

from octavo.model.config import MLAConfig, ModelConfig
from octavo.model.transformer import Transformer

# Within a block, ours -> theirs. Attention kinds do not share names, so one table holds both.
_BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    # MLA
    "attention.q.0.weight": "self_attn.q_a_proj.weight",
    "attention.q.1.weight": "self_attn.q_a_layernorm.weight",
    "attention.q.2.weight": "self_attn.q_b_proj.weight",
    "attention.kv_a.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "attention.kv_norm.weight": "self_attn.kv_a_layernorm.weight",
    "attention.kv_b.weight": "self_attn.kv_b_proj.weight",
    # GQA (q and o serve both kinds)
    **{f"attention.{part}.{leaf}": f"self_attn.{part}_proj.{leaf}" for part in "qkv" for leaf in ("weight", "bias")},
    "attention.o.weight": "self_attn.o_proj.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    # feed-forward
    **{f"ffn.{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")},
    **{f"ffn.shared.{part}.weight": f"mlp.shared_experts.{part}_proj.weight" for part in ("gate", "up", "down")},
    "ffn.router.weight": "mlp.gate.weight",
    "ffn.router.bias_E": "mlp.gate.e_score_correction_bias",
}
_MODEL = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
# An MTP module is one more layer with these beside its block.
_MTP = {
    "embed_norm.weight": "enorm.weight",
    "hidden_norm.weight": "hnorm.weight",
    "project.weight": "eh_proj.weight",
    "norm.weight": "shared_head.norm.weight",
}
_PLACE = re.compile(r"(layers|mtp)\.(\d+)\.(block\.)?(.+)")


def hugging_face_views(model: Transformer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Views of the model's tensors by their Hugging Face names: those of the main model, and those of MTP layers."""
    main: dict[str, Tensor] = {}
    mtp: dict[str, Tensor] = {}
    for ours, tensor in model.state_dict().items():
        place = _PLACE.fullmatch(ours)
        if place is None:
            main[_MODEL[ours]] = tensor
            continue
        kind, number, _, leaf = place.groups()
        layer = int(number) + (model.config.layers if kind == "mtp" else 0)
        views = main if kind == "layers" else mtp
        prefix = f"model.layers.{layer}"
        if leaf.startswith("ffn.experts."):
            views.update({f"{prefix}.mlp.experts.{name}": view for name, view in _expert_views(leaf, tensor)})
        else:
            table = _BLOCK if kind == "layers" or leaf in _BLOCK else _MTP
            views[f"{prefix}.{table[leaf]}"] = tensor
            if leaf == "ffn.router.weight" and _lacks_shared_expert(model.config):
                views.update({f"{prefix}.mlp.shared_experts.{name}": view for name, view in _no_shared_expert(tensor)})
    return main, mtp


def hugging_face_module(path: str) -> str:
    """The name of a module inside a layer: layers.0.attention.q -> model.layers.0.self_attn.q_proj."""
    _, layer, leaf = path.split(".", 2)
    inside = "mlp.experts" if leaf == "ffn.experts" else _BLOCK[f"{leaf}.weight"].removesuffix(".weight")
    return f"model.layers.{layer}.{inside}"


def _lacks_shared_expert(config: ModelConfig) -> bool:
    return config.moe is not None and not config.moe.shared_experts and isinstance(config.attention, MLAConfig)


def _no_shared_expert(like_ED: Tensor) -> list[tuple[str, Tensor]]:
    """DeepSeek's layout always has a shared expert: without one, it is of width 0."""
    empty_0D = like_ED[:0]
    return [("gate_proj.weight", empty_0D), ("up_proj.weight", empty_0D), ("down_proj.weight", empty_0D.T)]


def _expert_views(leaf: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Each expert's matrices, transposed to [out, in], out of a tensor that holds all of them."""
    if leaf.endswith("down_EFD"):
        return [(f"{e}.down_proj.weight", tensor[e].T) for e in range(len(tensor))]
    halves = (("gate_proj", 0), ("up_proj", 1))
    return [(f"{e}.{name}.weight", tensor[e].chunk(2, dim=1)[i].T) for e in range(len(tensor)) for name, i in halves]
