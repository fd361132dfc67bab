"""llama.cpp as a peer: the same questions that our side is asked. Benchmark-time dependency: llama-cpp-python.

Keys and values are cached in float32 and flash attention is off, so that llama.cpp computes in float32 as we do; its
own default is a cache of float16.

Shapes: `T` tokens, `V` vocabulary.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from octavo.text.messages import Message


class LlamaPeer:
    """A GGUF file, opened by llama.cpp. Close it before the process ends."""

    def __init__(self, path: Path, context_tokens: int, threads: int):
        self._llama = llama_cpp.Llama(
            str(path),
            n_ctx=context_tokens,
            n_batch=context_tokens,
            logits_all=True,
            n_threads=threads,
            n_threads_batch=threads,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            verbose=False,
        )

    def close(self) -> None:
        self._llama.close()

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt, by the chat template that stands in the file."""
        formatter = Jinja2ChatFormatter(
            self._llama.metadata["tokenizer.chat_template"],
            eos_token=self._token("eos"),
            bos_token=self._token("bos"),
        )
        given = [{"role": message.role, "content": message.content} for message in messages]
        return formatter(messages=given).prompt  # pyright: ignore[reportArgumentType]

    def _token(self, name: str) -> str:
        id_ = int(self._llama.metadata.get(f"tokenizer.ggml.{name}_token_id", -1))
        return "" if id_ < 0 else self._llama.detokenize([id_], special=True).decode()

    def encode_prompt(self, rendered: str) -> list[int]:
        """Ids of a rendered prompt, whose control tokens are control tokens."""
        return self._llama.tokenize(rendered.encode(), add_bos=False, special=True)

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self._llama.tokenize(text.encode(), add_bos=False, special=False)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits behind every token of one document, [T, V], computed at once."""
        self._llama.reset()
        self._llama.eval(list(ids))
        return self._llama.scores[: len(ids)].copy()

    def greedy(self, prompt_ids: Sequence[int], new_tokens: int) -> list[int]:
        """The likeliest token, so many times, decoded one by one from the cache; end tokens end nothing."""
        self._llama.reset()
        self._llama.eval(list(prompt_ids))
        drawn: list[int] = []
        while True:
            drawn.append(int(self._llama.scores[self._llama.n_tokens - 1].argmax()))
            if len(drawn) == new_tokens:
                return drawn
            self._llama.eval(drawn[-1:])

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """exp of the mean loss of every token but the first of each window."""
        nats, tokens = 0.0, 0
        for window in windows:
            logits_TV = self.logits(window[:-1]).astype(np.float64)
            largest_T = logits_TV.max(-1)
            normalizer_T = largest_T + np.log(np.exp(logits_TV - largest_T[:, None]).sum(-1))
            nats += float((normalizer_T - logits_TV[np.arange(len(window) - 1), list(window[1:])]).sum())
            tokens += len(window) - 1
        return math.exp(nats / tokens)
