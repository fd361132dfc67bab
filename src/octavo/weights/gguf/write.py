"""Write a GGUF file that llama.cpp answers from as we do: metadata, tokenizer, and the tensors one after the other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, Keys, TokenType

from octavo.errors import CheckpointError
from octavo.model.transformer import Transformer
from octavo.storage import replacing
from octavo.text.gguf_vocabulary import to_gguf
from octavo.text.tokenizer import Tokenizer
from octavo.weights.gguf.config import ARCHITECTURES, metadata_of
from octavo.weights.gguf.kinds import FILE_TYPES, largest_value, quantize
from octavo.weights.gguf.rope import ROPE_FACTORS, rope_factors, rope_metadata
from octavo.weights.gguf.tensors import Outgoing, adapted, outgoing_tensors
from octavo.weights.hf_config import to_hugging_face
from octavo.weights.names import hugging_face_views

KINDS = tuple(FILE_TYPES)
"""What `write_gguf` can write, finest first."""

_F32, _F16, _Q8_0 = GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0
_TABLES = ("token_embd.weight", "output.weight")


def write_gguf(path: Path, model: Transformer, tokenizer: Tokenizer, kind: str) -> None:
    """Write a model with its tokenizer, whole or not at all. Peak memory is the model and one matrix.

    `kind` is one of `KINDS`: what matrices are stored as. As in llama.cpp's files, vectors and the router stay F32, and
    matrices whose rows are not whole blocks F16; embedding and head are Q8_0 where `kind` is smaller.
    Layers of multi-token prediction are left out: they serve training, and llama.cpp's deepseek2 did not know them for
    long. Raises CheckpointError for models that llama.cpp does not know and weights that `kind` cannot hold;
    StorageError.
    """
    if kind not in FILE_TYPES:
        raise CheckpointError(f"a GGUF file of kind {kind!r} cannot be written (known: {', '.join(KINDS)})")
    values, views = adapted(to_hugging_face(model.config), hugging_face_views(model)[0])
    architecture = ARCHITECTURES[values["model_type"]]
    metadata = metadata_of(values) | rope_metadata(model.config, architecture)
    tensors = list(outgoing_tensors(architecture, values, views))
    factors = rope_factors(model.config)
    if factors is not None:
        tensors.append(Outgoing(ROPE_FACTORS, factors.shape, (torch.from_numpy(factors),)))
    vocabulary = _padded(to_gguf(tokenizer, str(path)), model.config.vocab_size, path)
    kinds = [_kind(tensor, GGMLQuantizationType[kind]) for tensor in tensors]
    with replacing(path) as unfinished:
        writer = GGUFWriter(unfinished, architecture)
        writer.add_type("model")
        writer.add_name(path.stem)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add(writer, {f"{architecture}.{key}": value for key, value in metadata.items()} | vocabulary)
        values_type = np.dtype(np.float32)  # shapes are of values; those of bytes would be translated
        for tensor, each in zip(tensors, kinds, strict=True):
            writer.add_tensor_info(tensor.name, tensor.shape, values_type, _bytes(tensor, each), raw_dtype=each)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        with open(unfinished, "ab") as file:
            for tensor, each in zip(tensors, kinds, strict=True):
                _write_tensor(file, tensor, each, path)


def _kind(tensor: Outgoing, kind: GGMLQuantizationType) -> GGMLQuantizationType:
    if len(tensor.shape) == 1 or tensor.name.endswith("ffn_gate_inp.weight") or tensor.runs[0].is_sparse:
        return _F32
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if tensor.name in _TABLES and block_bytes / block < 1:
        kind = _Q8_0
    return kind if tensor.shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else _F16


def _bytes(tensor: Outgoing, kind: GGMLQuantizationType) -> int:
    block, block_bytes = GGML_QUANT_SIZES[kind]
    return math.prod(tensor.shape) // block * block_bytes


def _write_tensor(file: BinaryIO, tensor: Outgoing, kind: GGMLQuantizationType, path: Path) -> None:
    _pad(file)
    for run in tensor.runs:
        values = run.detach().to_dense().to("cpu", torch.float32).contiguous().view(-1).numpy()
        largest = max(values.max(), -values.min())
        if not largest <= largest_value(kind):
            raise CheckpointError(
                f"{path}: {tensor.name} holds {largest}, which {kind.name} cannot store: "
                + ("choose F32" if np.isfinite(largest) else "use an earlier checkpoint")
            )
        file.write(quantize(values, kind).data)
    _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def _padded(vocabulary: Mapping[str, Any], vocab_size: int, path: Path) -> dict[str, Any]:
    """The vocabulary with as many tokens as the embedding has rows: llama.cpp takes the one for the other."""
    fields, tokens = dict(vocabulary), vocabulary[Keys.Tokenizer.LIST]
    missing = vocab_size - len(tokens)
    if missing < 0:
        raise CheckpointError(f"{path}: the tokenizer has {len(tokens):,} tokens, the model only {vocab_size:,}")
    filling = {
        Keys.Tokenizer.LIST: [f"[PAD{number}]" for number in range(len(tokens), vocab_size)],
        Keys.Tokenizer.TOKEN_TYPE: [int(TokenType.UNUSED)] * missing,
        Keys.Tokenizer.SCORES: [-1000.0] * missing,
    }
    return fields | {key: [*fields[key], *more] for key, more in filling.items() if key in fields}


def _add(writer: GGUFWriter, fields: Mapping[str, Any]) -> None:
    """Keys with the types that readers expect: numbers are uint32 or float32."""
    for key, value in fields.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, value)
