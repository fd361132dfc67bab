"""GGUF files, in and out: the format of llama.cpp and the tools around it."""

from octavo.weights.gguf.load import load_gguf
from octavo.weights.gguf.write import KINDS, write_gguf

__all__ = ["KINDS", "load_gguf", "write_gguf"]
