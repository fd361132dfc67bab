"""Model folders in the Hugging Face layout, in and out: `transformers`, vLLM and llama.cpp's converter open them as is.

`config.json`, `generation_config.json`, `model.safetensors`, the tokenizer's files, and `mtp.safetensors` where there
are MTP layers: apart, because the released layout numbers them as further layers, which most readers do not expect.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from octavo.checkpoint import write_folder
from octavo.errors import CheckpointError
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf_config import from_hugging_face, to_hugging_face
from octavo.weights.names import hugging_face_views

_WEIGHTS, _MTP_WEIGHTS = "model.safetensors", "mtp.safetensors"


def save_model(folder: Path, model: Transformer, tokenizer: Tokenizer) -> None:
    """Write a model folder, whole or not at all. Raises StorageError; CheckpointError for shapes without a layout."""
    config = to_hugging_face(model.config)
    end_ids = sorted(tokenizer.end_ids)
    pad_id = tokenizer.token_id("<|endoftext|>")
    config |= {
        "bos_token_id": None,
        "eos_token_id": end_ids[0] if len(end_ids) == 1 else end_ids,
        "pad_token_id": pad_id,
    }
    generation = {"eos_token_id": end_ids, "pad_token_id": pad_id, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
    main, mtp = hugging_face_views(model)
    with write_folder(folder) as unfinished:
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (unfinished / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
        tokenizer.save(unfinished)
        _save_tensors(unfinished / _WEIGHTS, main)
        if mtp:
            _save_tensors(unfinished / _MTP_WEIGHTS, mtp)


def load_model(folder: Path) -> Transformer:
    """Read a model folder. Raises CheckpointError naming the file, and the tensor that is missing or misshapen."""
    path = folder / "config.json"
    config = from_hugging_face(_read_config(path), str(path))
    model = Transformer.empty(config)
    main, mtp = hugging_face_views(model)
    _load_tensors(folder / _WEIGHTS, main)
    if mtp:
        _load_tensors(folder / _MTP_WEIGHTS, mtp)
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer and chat template of a model folder."""
    return Tokenizer.load(folder)


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def _load_tensors(path: Path, views: dict[str, Tensor]) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            missing, unexpected = sorted(views.keys() - names), sorted(names - views.keys())
            if missing or unexpected:
                what = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is not part of the config's model"
                raise CheckpointError(f"{path}: {what} ({len(missing)} missing, {len(unexpected)} unexpected tensors)")
            for name, view in views.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(view.shape):
                    raise CheckpointError(f"{path}: {name} has shape {shape}, the config says {tuple(view.shape)}")
                view.copy_(file.get_tensor(name))
                if not view.isfinite().all():
                    raise CheckpointError(f"{path}: {name} holds NaN or infinity: use an earlier checkpoint")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected a whole model folder") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors: {_one_line(error)}") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected a model folder") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a model config in JSON: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a model config, a JSON object, got {type(values).__name__}")
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
