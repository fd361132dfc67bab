"""Open a model, whatever its form: a Hugging Face folder or a .gguf file."""

from pathlib import Path

from octavo.errors import CheckpointError
from octavo.model.config import ModelConfig
from octavo.model.quantize import Quantization, quantize
from octavo.model.transformer import Transformer
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import load_config, load_model, load_tokenizer
from octavo.weights.safetensors import PICKLES, pickle_refusal


def read_config(path: Path) -> ModelConfig:
    """What kind of model lies there, without its weights. Raises CheckpointError."""
    if path.suffix == ".gguf" and path.is_file():
        from octavo.weights.gguf import read_gguf_config

        return read_gguf_config(path)
    return load_config(path)


def open_model(path: Path, quantization: Quantization | None = None) -> tuple[Transformer, Tokenizer]:
    """The model and its tokenizer; with `quantization` its weights are rounded, and it is for inference only.

    Nothing in the files is executed, chat templates run in a sandbox.

    Raises CheckpointError, in one line that names the file, for everything that is no whole model.
    """
    if path.is_dir():
        tokenizer = load_tokenizer(path)
        model = load_model(path)
    elif not path.exists():
        raise CheckpointError(f"{path}: no such file or folder; expected a Hugging Face model folder or a .gguf file")
    elif path.suffix == ".gguf":
        from octavo.weights.gguf import load_gguf

        model, tokenizer = load_gguf(path)
    elif path.suffix in PICKLES:
        raise pickle_refusal(path)
    elif path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: weights alone; give the folder that holds config.json and the tokenizer too")
    else:
        raise CheckpointError(f"{path}: expected a Hugging Face model folder or a .gguf file")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model knows {model.config.vocab_size:,}; "
            "they do not belong together"
        )
    if quantization is not None:
        quantize(model, quantization)
    return model, tokenizer
