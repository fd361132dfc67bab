"""GGUF files, in and out: the format of llama.cpp and the tools around it."""

from octavo.weights.gguf.load import load_gguf, read_gguf_config
from octavo.weights.gguf.write import KINDS, write_gguf

__all__ = ["KINDS", "load_gguf", "read_gguf_config", "write_gguf"]
