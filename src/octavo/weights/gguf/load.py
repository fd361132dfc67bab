"""A model and its tokenizer out of one GGUF file."""

from pathlib import Path

from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.text.gguf_vocabulary import from_gguf
from octavo.text.tokenizer import Tokenizer
from octavo.weights.fill import build_model
from octavo.weights.gguf.source import GGUFSource
from octavo.weights.hf_config import from_hugging_face


def read_gguf_config(path: Path) -> ModelConfig:
    """What the file says of its model. Raises CheckpointError."""
    with GGUFSource(path) as source:
        return from_hugging_face(source.config, str(path))


def load_gguf(path: Path) -> tuple[Transformer, Tokenizer]:
    """The model, in float32, and its tokenizer. Peak memory is the model and one tensor.

    Raises CheckpointError naming the file, and the key or tensor, for everything that is no whole model.
    """
    with GGUFSource(path) as source:
        config = from_hugging_face(source.config, str(path))
        tokenizer = from_gguf(source.gguf.metadata, str(path))
        return build_model(config, source), tokenizer
