"""Ten questions, and our greedy answers to them: what other programs' answers are compared with."""

import copy
import dataclasses
from collections.abc import Sequence

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.model.transformer import Transformer
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.text.messages import Message
from octavo.text.tokenizer import Tokenizer

NEW_TOKENS = 64
QUESTIONS = (
    "What is the capital of France?",
    "Name three fruits that grow on trees.",
    "What is 47 + 38?",
    "State the final answer to the following arithmetic problem: 12 + 7 + 30 =",
    "Write one sentence about the sea.",
    "How many legs are there in total if you have 3 cows, 2 spiders?",
    "Translate to German: good morning",
    "Find the value of x in the equation: 5*x + 3 = 28",
    "Explain photosynthesis to a child.",
    "Ecris une phrase en français, s'il te plaît: été, œuvre, naïf. 印刷 🙂",
)
CONVERSATIONS = [[Message("user", question)] for question in QUESTIONS]


def our_greedy(model: Transformer, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """`NEW_TOKENS` ids for each prompt, all decoded at once by the engine; end tokens end nothing."""
    endless = copy.copy(tokenizer)
    endless.special = dataclasses.replace(endless.special, end_ids=frozenset())
    engine = Engine(model, endless, EngineConfig(max_rows=len(prompts)))
    params = SamplingParams(NEW_TOKENS, temperature=0.0)
    groups = engine.complete([CompletionRequest(tuple(prompt), params) for prompt in prompts])
    return [list(group[0].ids) for group in groups]
