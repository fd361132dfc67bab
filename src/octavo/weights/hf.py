"""Model folders in the Hugging Face layout, in and out: `transformers`, vLLM and llama.cpp's converter open them as is.

`config.json`, `generation_config.json`, `model.safetensors` (or shards and their index), the tokenizer's files, and
`mtp.safetensors` where there are MTP layers: apart, because the released layout numbers them as further layers, which
most readers do not expect.
"""

import json
from pathlib import Path

import torch

from octavo.checkpoint import write_folder
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer
from octavo.weights.fill import build_model
from octavo.weights.fp8 import block_of
from octavo.weights.hf_config import from_hugging_face, to_hugging_face
from octavo.weights.names import hugging_face_views
from octavo.weights.safetensors import MTP_WEIGHTS, SafetensorsSource, read_object
from octavo.weights.safetensors_write import write_sharded, write_tensors

SHARD_BYTES = 5_000_000_000
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types that weights can be saved in, by the name that config.json gives them."""


def save_model(
    folder: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model folder, whole or not at all. Peak memory is the model and one tensor.

    `dtype` is one of `DTYPES`; float32 keeps every bit. A larger model lies in files of at most `shard_bytes`. Raises
    StorageError; CheckpointError for shapes without a layout and for values that `dtype` cannot hold.
    """
    names = {each: name for name, each in DTYPES.items()}
    config = to_hugging_face(model.config) | {"torch_dtype": names[dtype]}
    end_ids = sorted(tokenizer.end_ids)
    pad_id = tokenizer.pad_id
    config |= {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": end_ids[0] if len(end_ids) == 1 else end_ids,
        "pad_token_id": pad_id,
    }
    generation = {"eos_token_id": end_ids, "pad_token_id": pad_id, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
    main, mtp = hugging_face_views(model)
    with write_folder(folder) as unfinished:
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (unfinished / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
        tokenizer.save(unfinished)
        write_sharded(unfinished, main, dtype, shard_bytes)
        if mtp:
            write_tensors(unfinished / MTP_WEIGHTS, mtp, dtype)


def load_model(folder: Path) -> Transformer:
    """Read a model folder, in float32. Peak memory is the model and one tensor.

    Raises CheckpointError naming the file, and the tensor that is missing or misshapen; then nothing was allocated.
    """
    path = folder / "config.json"
    values = read_object(path, "a model config")
    block = block_of(values, str(path))
    config = from_hugging_face(values, str(path))
    with SafetensorsSource(folder, block) as source:
        return build_model(config, source)


def load_config(folder: Path) -> ModelConfig:
    """What a model folder says of its model. Raises CheckpointError."""
    path = folder / "config.json"
    return from_hugging_face(read_object(path, "a model config"), str(path))


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer and chat template of a model folder."""
    return Tokenizer.load(folder)
