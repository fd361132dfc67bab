"""What Python hands to the kernels: the structures of kernels/team.h, experts.h and extend.h, field by field."""

import ctypes
from ctypes import c_float, c_int64, c_void_p

ABSENT, FLOAT_ROWS, FLOAT_COLUMNS, INT8 = range(4)
NO_NORM, NORM_OF_HEADS, NORM_OF_ALL = range(3)


class Matrix(ctypes.Structure):
    """[outputs, inputs]; all 0: absent."""

    _fields_ = (
        *((name, c_int64) for name in ("kind", "outputs", "inputs")),
        *((name, c_void_p) for name in ("values", "scales", "bias")),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("attention_norm", "ffn_norm")),
        *((name, Matrix) for name in ("q_a", "q", "k", "v", "kv_a", "o")),
        *((name, c_void_p) for name in ("q_norm", "k_norm", "kv_b")),
        *((name, Matrix) for name in ("gate", "up", "down", "router", "gate_up", "experts_down")),
        ("router_bias", c_void_p),
    )


class Routing(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("experts", "chosen", "groups", "kept_groups", "softmax", "normalize")),
        ("routed_scale", c_float),
    )


class Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("width", "layers", "latent", "heads", "kv_heads", "nope", "rotated")),
        *((name, c_int64) for name in ("value_dim", "rank", "q_rank", "qk_norm", "window", "ffn_width")),
        ("routing", Routing),
        *((name, c_float) for name in ("score_scale", "norm_eps", "latent_norm_eps")),
        ("final_norm", c_void_p),
        ("layer", ctypes.POINTER(Layer)),
    )


class Tokens(ctypes.Structure):
    _fields_ = (
        ("tokens", c_int64),
        *((name, c_void_p) for name in ("row", "slot")),
        ("longest", c_int64),
        *((name, c_void_p) for name in ("cosine", "sine", "cache")),
        *((name, c_int64) for name in ("row_stride", "head_stride")),
        ("x", c_void_p),
    )


ALL = (Matrix, Layer, Routing, Model, Tokens)
