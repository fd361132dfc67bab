"""Decoding many sequences of a sparse model: our engine against `transformers`' generate on the same checkpoint.

    python benchmarks/decode.py [--model runs/r1-mini/final/model] [--rounds 3] [--threads 2] [--sequences 64]
                                [--new-tokens 128] [--profile]

The model is a random one of 18M parameters unless a model folder is given. Each side draws 128 tokens after a prompt of
32 for 64 sequences at once, at temperature 1 and with no end token, prefill included. The prompts differ, so nothing is
shared. Ours gives log-probs too, transformers does not. Sides take turns in one process, and medians are compared.
Prints one JSON line: tokens a second of each and their ratio.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import load_model, load_tokenizer, save_model

PROMPT_TOKENS = 32
CONFIG = ModelConfig.parse(
    {
        "vocab_size": 4096,
        "width": 256,
        "layers": 4,
        "ffn_width": 768,
        "attention": {"kind": "mla", "heads": 8, "nope_dim": 32, "rope_dim": 16, "v_dim": 32, "kv_rank": 64},
        "moe": {"experts": 64, "experts_per_token": 6, "expert_width": 96},
    }
)

Generate = Callable[[], int]
"""Decodes everything once; returns the number of new tokens."""


def our_generate(model: Transformer, tokenizer: Tokenizer, prompts_BT: torch.Tensor, new_tokens: int) -> Generate:
    tokenizer.special = dataclasses.replace(tokenizer.special, end_ids=frozenset())
    engine = Engine(model, tokenizer, EngineConfig(max_rows=len(prompts_BT)))
    requests = [
        CompletionRequest(tuple(prompt), SamplingParams(new_tokens, seed=seed))
        for seed, prompt in enumerate(prompts_BT.tolist())
    ]
    return lambda: sum(len(completion.ids) for group in engine.complete(requests) for completion in group)


def their_generate(folder: Path, prompts_BT: torch.Tensor, new_tokens: int) -> Generate:
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None
    mask_BT = torch.ones_like(prompts_BT)

    def generate() -> int:
        ids = model.generate(
            prompts_BT,
            attention_mask=mask_BT,
            max_new_tokens=new_tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        return ids.shape[0] * (ids.shape[1] - prompts_BT.shape[1])

    return generate


def tokens_per_second(generate: Generate) -> float:
    start = time.perf_counter()
    tokens = generate()
    return tokens / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a sparse model folder instead of the random model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--profile", action="store_true", help="show where our side spends its time, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    if arguments.model:
        model, tokenizer = load_model(arguments.model).eval(), load_tokenizer(arguments.model)
    else:
        model, tokenizer = Transformer(CONFIG).eval(), Tokenizer.train(["a benchmark reads no text"], vocab_size=300)
    prompts_BT = torch.randint(0, model.config.vocab_size, (arguments.sequences, PROMPT_TOKENS))
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", model, tokenizer)
        theirs = their_generate(Path(folder) / "model", prompts_BT, arguments.new_tokens)
    ours = our_generate(model, tokenizer, prompts_BT, arguments.new_tokens)
    ours()
    if arguments.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            ours()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=60))
        return
    pairs = [(tokens_per_second(ours), tokens_per_second(theirs)) for _ in range(arguments.rounds)]
    speeds = [statistics.median(column) for column in zip(*pairs, strict=True)]
    row = {
        "name": f"decode-{arguments.sequences}{'-given-model' if arguments.model else ''}/transformers",
        "ours": round(speeds[0], 1),
        "peer": round(speeds[1], 1),
        "ratio": round(speeds[0] / speeds[1], 2),
        "unit": "tokens per second",
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
