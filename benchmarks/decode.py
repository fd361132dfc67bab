"""Decoding: our engine against `transformers`' generate, and against llama.cpp where it is installed.

    python benchmarks/decode.py [--model MODEL] [--sequences 1 16 64] [--rounds 3] [--threads 2] [--new-tokens 128]
                                [--way kernels torch] [--profile]

Without --model: two random sparse models, one of 18M parameters and one of r1-mini's shape. MODEL is a model folder, a
.gguf file (as SmolLM2's: then in float32 and in int8, and llama.cpp reads the same weights as Q8_0), or a run.

Each side draws the same number of tokens after prompts of 32 for all sequences at once, at temperature 1 and with no
end token, prefill included. The prompts differ, so nothing is shared. Ours gives log-probs too, the others do not.
Sides take turns in one process, and medians are compared. Prints one JSON line for each comparison: tokens a second of
each, and the ratio.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import transformers

from octavo import native
from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.model.config import ModelConfig
from octavo.model.quantize import quantize
from octavo.model.transformer import Transformer
from octavo.models import find_model
from octavo.tasks.types import CompletionRequest, SamplingParams
from octavo.text.tokenizer import Tokenizer
from octavo.weights.gguf import write_gguf
from octavo.weights.hf import load_model, load_tokenizer, save_model
from octavo.weights.open import open_model

PROMPT_TOKENS = 32
RANDOM = {
    "18m": {
        "vocab_size": 4096,
        "width": 256,
        "layers": 4,
        "ffn_width": 768,
        "attention": {"kind": "mla", "heads": 8, "nope_dim": 32, "rope_dim": 16, "v_dim": 32, "kv_rank": 64},
        "moe": {"experts": 64, "experts_per_token": 6, "expert_width": 96},
    },
    "r1-mini": {
        "vocab_size": 512,
        "width": 96,
        "layers": 4,
        "ffn_width": 192,
        "max_positions": 512,
        "tie_embeddings": True,
        "attention": {"kind": "mla", "heads": 4, "nope_dim": 16, "rope_dim": 16, "v_dim": 32, "kv_rank": 48},
        "moe": {"experts": 80, "experts_per_token": 4, "expert_width": 40},
    },
}

Generate = Callable[[], int]
"""Decodes everything once; returns the number of new tokens."""


def our_generate(model: Transformer, tokenizer: Tokenizer, prompts_BT: torch.Tensor, new_tokens: int) -> Generate:
    tokenizer.special = dataclasses.replace(tokenizer.special, end_ids=frozenset())
    engine = Engine(model, tokenizer, EngineConfig(max_rows=len(prompts_BT), max_tokens=PROMPT_TOKENS + new_tokens))
    requests = [
        CompletionRequest(tuple(prompt), SamplingParams(new_tokens, seed=seed))
        for seed, prompt in enumerate(prompts_BT.tolist())
    ]
    return lambda: sum(len(completion.ids) for group in engine.complete(requests) for completion in group)


def their_generate(model: transformers.PreTrainedModel, prompts_BT: torch.Tensor, new_tokens: int) -> Generate:
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


def llama_generate(path: Path, prompts_BT: torch.Tensor, new_tokens: int, threads: int) -> Generate:
    """All sequences in one batch each step, drawn by llama.cpp's own sampler from the whole distribution."""
    import llama_cpp as llama

    sequences = len(prompts_BT)
    params = llama.llama_context_default_params()
    params.n_ctx = sequences * (PROMPT_TOKENS + new_tokens)
    params.n_batch = params.n_ubatch = max(512, sequences)
    params.n_seq_max, params.n_threads, params.n_threads_batch = sequences, threads, threads
    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent, None)
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    context = llama.llama_init_from_model(model, params)
    samplers = [llama.llama_sampler_init_dist(seed) for seed in range(sequences)]
    batch = llama.llama_batch_init(params.n_batch, 0, 1)

    def decode(tokens: list[tuple[int, int, int, bool]]) -> None:
        """(token, position, sequence, whether logits are wanted)"""
        for index, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[index], batch.pos[index], batch.n_seq_id[index] = token, position, 1
            batch.seq_id[index][0], batch.logits[index] = sequence, wanted
        batch.n_tokens = len(tokens)
        failed = llama.llama_decode(context, batch)
        assert not failed, f"llama_decode: {failed}"

    def draw(sequence: int, index: int) -> int:
        return llama.llama_sampler_sample(samplers[sequence], context, index)

    def generate() -> int:
        _ = silent  # must outlive the library's use of it
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        last = []
        per_pass = params.n_batch // PROMPT_TOKENS
        for start in range(0, sequences, per_pass):
            stop = min(start + per_pass, sequences)
            decode(
                [
                    (int(token), position, sequence, position == PROMPT_TOKENS - 1)
                    for sequence in range(start, stop)
                    for position, token in enumerate(prompts_BT[sequence])
                ]
            )
            last += [draw(row, (row - start + 1) * PROMPT_TOKENS - 1) for row in range(start, stop)]
        for step in range(1, new_tokens):
            decode([(token, PROMPT_TOKENS + step - 1, row, True) for row, token in enumerate(last)])
            last = [draw(row, row) for row in range(sequences)]
        return sequences * new_tokens

    return generate


def tokens_per_second(generate: Generate, way: str) -> float:
    os.environ[native.SWITCH] = "0" if way == "torch" else "1"
    start = time.perf_counter()
    tokens = generate()
    return tokens / (time.perf_counter() - start)


def compare(name: str, sides: dict[str, tuple[Generate, str]], rounds: int) -> None:
    """Sides take turns, after a short turn to warm up; every one of ours is set against every other."""
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (generate, way) in sides.items():
            speeds[side].append(tokens_per_second(generate, way))
    medians = {side: statistics.median(found) for side, found in speeds.items()}
    for ours in (side for side in sides if side.startswith("octavo")):
        for peer in (side for side in sides if not side.startswith("octavo")):
            row = {
                "name": f"decode-{name}/{ours}/{peer}",
                "ours": round(medians[ours], 1),
                "peer": round(medians[peer], 1),
                "ratio": round(medians[ours] / medians[peer], 2),
                "unit": "tokens per second",
            }
            print(json.dumps(row), flush=True)


def models(arguments: argparse.Namespace) -> Iterator[tuple[str, Transformer, Tokenizer]]:
    if arguments.model:
        yield Path(arguments.model).stem, *open_model(find_model(arguments.model))
        return
    for name, values in RANDOM.items():
        torch.manual_seed(0)
        yield name, Transformer(ModelConfig.parse(values)), Tokenizer.train(["nobody reads this"], vocab_size=300)


def measure(name: str, model: Transformer, tokenizer: Tokenizer, arguments: argparse.Namespace, folder: Path) -> None:
    model.eval()
    save_model(folder / "model", model, tokenizer)
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    peer.generation_config.eos_token_id = None
    dense = model.config.moe is None
    if dense and arguments.llama:
        write_gguf(folder / "q8.gguf", model, tokenizer, "Q8_0")
    rounded, same = None, tokenizer
    if dense:
        rounded, same = load_model(folder / "model"), load_tokenizer(folder / "model")
        quantize(rounded, "int8")
    for sequences in arguments.sequences:
        prompts_BT = torch.randint(0, model.config.vocab_size, (sequences, PROMPT_TOKENS))
        new_tokens = arguments.new_tokens
        ours = our_generate(model, tokenizer, prompts_BT, new_tokens)
        sides = {f"octavo-{way}": (ours, way) for way in arguments.way}
        if rounded is not None:
            sides["octavo-int8"] = (our_generate(rounded, same, prompts_BT, new_tokens), "kernels")
        if not arguments.profile:
            sides["transformers"] = (their_generate(peer, prompts_BT, new_tokens), "")
            if dense and arguments.llama:
                path = folder / "q8.gguf"
                sides["llama.cpp-q8_0"] = (llama_generate(path, prompts_BT, new_tokens, arguments.threads), "")
            our_generate(model, tokenizer, prompts_BT, 2)()
            their_generate(peer, prompts_BT, 2)()
            compare(f"{name}-{sequences}", sides, arguments.rounds)
            continue
        ours()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            ours()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model instead of the two random ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sequences", type=int, nargs="+", default=[64])
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--way", nargs="+", choices=("kernels", "torch"), default=["kernels"])
    parser.add_argument("--profile", action="store_true", help="show where our side spends its time, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    try:
        import llama_cpp

        arguments.llama = bool(llama_cpp)
    except ImportError:
        arguments.llama = False
    for name, model, tokenizer in models(arguments):
        with tempfile.TemporaryDirectory() as folder:
            measure(name, model, tokenizer, arguments, Path(folder))


if __name__ == "__main__":
    main()
