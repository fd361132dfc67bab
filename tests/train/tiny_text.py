"""A small vocabulary and a small corpus of sums, for trainers that read text."""

from functools import cache

from octavo.data.sources import ListSource
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig
from octavo.optim.groups import OptimizerConfig
from octavo.optim.schedule import ScheduleConfig
from octavo.text.messages import Document, Message
from octavo.text.tokenizer import Tokenizer
from octavo.train.types import LoopConfig

TEXTS = [f"{a} plus {b} is {a + b}." for a in range(8) for b in range(8)]


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 280)


def plain_source() -> ListSource:
    return ListSource(Document(text=text) for text in TEXTS)


def conversation_source() -> ListSource:
    return ListSource(
        Document(messages=(Message("user", f"{a} plus {b}"), Message("assistant", str(a + b), reasoning=f"{a}+{b}")))
        for a in range(8)
        for b in range(8)
    )


def dense_config() -> ModelConfig:
    attention = GQAConfig(heads=2, kv_heads=1)
    return ModelConfig(
        vocab_size=tokenizer().vocab_size, width=16, layers=1, ffn_width=32, attention=attention, init_std=0.2
    )


def sparse_config() -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer().vocab_size,
        width=16,
        layers=2,
        ffn_width=32,
        attention=MLAConfig(heads=2, kv_rank=8, nope_dim=4, rope_dim=4, v_dim=8),
        moe=MoEConfig(experts=4, experts_per_token=2, expert_width=8),
        mtp_layers=1,
        init_std=0.2,
    )


def reading_options(steps: int = 20) -> dict:
    """Fields that all configs of trainers on text share."""
    return {
        "loop": LoopConfig(steps=steps, schedule=ScheduleConfig(warmup_steps=3)),
        "optimizer": OptimizerConfig(learning_rate=3e-3),
        "tokens_per_step": 192,
        "tokens_per_row": 48,
        "micro_batch_tokens": 96,
    }
