"""Training step of a sparse model: Octavo against `transformers`' DeepseekV3ForCausalLM of the same config.

    python benchmarks/train_step.py [--rounds 3] [--threads 2] [--profile]

A step is forward, loss, backward and AdamW (fused, the same for both) over all parameters, on about 4096 tokens.
transformers takes its loss from whole logits and runs its default experts implementation, as its users do; a second
line has its loop over experts instead.
- `equal`: 16 documents of 256 tokens, which transformers gets as 16 rows: its best case, no padding and no mask.
- `ragged`: documents of 32 to 480 tokens, packed into one row for Octavo, padded to the longest for transformers, as
  its data collators do. Only real tokens count.

The sides take turns in one process and medians are compared. Prints one JSON line a comparison: tokens a second of
each, their ratio, and the peak of memory that a step adds.
"""

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable

import psutil
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from octavo.losses.cross_entropy import cross_entropy
from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.weights.hf_config import to_hugging_face

CONFIG = ModelConfig.parse(
    {
        "vocab_size": 8192,
        "width": 256,
        "layers": 6,
        "ffn_width": 768,
        "attention": {"kind": "mla", "heads": 8, "nope_dim": 32, "rope_dim": 16, "v_dim": 32, "kv_rank": 96},
        "moe": {"experts": 64, "experts_per_token": 6, "expert_width": 96},
    }
)
EQUAL = [256] * 16
RAGGED = [121, 360, 151, 390, 181, 420, 270, 211, 450, 61, 300, 241, 480, 91, 330, 32]

Step = Callable[[], None]


def random_documents(lengths: list[int]) -> list[torch.Tensor]:
    """Documents of random ids, each one token longer than what is read of it; the same for both sides."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, CONFIG.vocab_size, (length + 1,), generator=generator) for length in lengths]


def our_step(lengths: list[int]) -> Step:
    """One training step of Octavo on documents packed into one row."""
    model = Transformer(CONFIG).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    documents = random_documents(lengths)
    inputs_BT = torch.cat([ids[:-1] for ids in documents])[None]
    targets_R = torch.cat([ids[1:] for ids in documents])
    positions_BT = torch.cat([torch.arange(length) for length in lengths])[None]
    weights_R = torch.ones(len(targets_R))

    def step() -> None:
        hidden_RD = model(inputs_BT, positions_BT).flatten(0, 1)
        loss = cross_entropy(hidden_RD, model.head_weight_VD, targets_R, weights_R)
        (loss.loss_sum / len(targets_R)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def their_step(lengths: list[int], experts: str | None) -> Step:
    """One training step of transformers on documents as rows, padded to the longest."""
    values = to_hugging_face(CONFIG)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=experts).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    documents = random_documents(lengths)
    inputs_BT = pad_sequence([ids[:-1] for ids in documents], batch_first=True)
    targets_BT = pad_sequence([ids[1:] for ids in documents], batch_first=True, padding_value=-100)
    mask_BT = None if len(set(lengths)) == 1 else (targets_BT != -100).long()

    def step() -> None:
        labels = {"labels": targets_BT, "shift_labels": targets_BT}
        model(inputs_BT, attention_mask=mask_BT, use_cache=False, **labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def added_bytes(step: Step) -> int:
    """Peak of resident memory during one step, over that before it (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what the allocator keeps from earlier steps
    before = psutil.Process().memory_info().rss
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    step()
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return peak - before


def compare(name: str, lengths: list[int], experts: str | None, rounds: int) -> None:
    """Run both in turn and print the JSON line."""
    ours, theirs = our_step(lengths), their_step(lengths, experts)
    for step in (ours, theirs):
        step()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    our_speed, their_speed = (sum(lengths) / statistics.median(column) for column in zip(*pairs, strict=True))
    row = {
        "name": f"train_step/{name}",
        "ours": round(our_speed),
        "peer": round(their_speed),
        "ratio": round(our_speed / their_speed, 2),
        "unit": "tokens per second",
        "ours_added_bytes": added_bytes(ours),
        "peer_added_bytes": added_bytes(theirs),
    }
    print(json.dumps(row), flush=True)


def profile(step: Step) -> None:
    """Print where a step spends its time."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="show where our step spends its time, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.profile:
        profile(our_step(EQUAL))
        return
    accounting = Accounting.of(CONFIG)
    print(json.dumps({"parameters": accounting.total_parameters, "active": accounting.active_parameters}))
    compare("equal", EQUAL, None, arguments.rounds)
    compare("equal/loop over experts", EQUAL, "eager", arguments.rounds)
    compare("ragged", RAGGED, None, arguments.rounds)


if __name__ == "__main__":
    main()
