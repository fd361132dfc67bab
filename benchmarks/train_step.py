"""Training step of a sparse model: ours against `transformers`' DeepseekV3ForCausalLM with the same weights' shapes.

    python benchmarks/train_step.py [--rounds 5] [--threads 2] [--eager] [--profile]

A step is forward, loss, backward and AdamW over all parameters, on 4096 tokens as 16 documents of 256. Both sides use
the same fused AdamW. transformers gets the documents as 16 rows (its best case: no packing, no mask), takes its loss
from whole logits as its users do, and runs its default experts implementation (grouped matrix products), or with
--eager its loop over experts too. Sides take turns in one process, and medians are compared. Prints one JSON line a
comparison: tokens a second of each, their ratio, and the peak of memory that a step adds.
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

from octavo.losses.cross_entropy import cross_entropy
from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.weights.hf_config import to_hugging_face

DOCUMENTS, LENGTH = 16, 256
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

Step = Callable[[], None]


def our_step() -> Step:
    """One training step of Octavo's model."""
    model = Transformer(CONFIG).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs_BT, targets_BT = tokens()
    positions_BT = torch.arange(LENGTH).expand_as(inputs_BT)
    weights_R = torch.ones(inputs_BT.numel())

    def step() -> None:
        hidden_RD = model(inputs_BT, positions_BT).flatten(0, 1)
        loss = cross_entropy(hidden_RD, model.head_weight_VD, targets_BT.flatten(), weights_R)
        (loss.loss_sum / inputs_BT.numel()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def their_step(experts: str | None) -> Step:
    """One training step of transformers' model."""
    values = to_hugging_face(CONFIG)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    model = transformers.AutoModelForCausalLM.from_config(config, experts_implementation=experts).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs_BT, targets_BT = tokens()

    def step() -> None:
        model(inputs_BT, labels=targets_BT, shift_labels=targets_BT, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """The same random inputs and targets for both, [16, 256]."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, CONFIG.vocab_size, (DOCUMENTS, LENGTH + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def added_bytes(step: Step) -> int:
    """Peak of resident memory during one step, over that before it (Linux with glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what the allocator keeps from earlier steps
    process = psutil.Process()
    before = process.memory_info().rss
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # Linux: the peak starts anew
    step()
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return peak - before


def compare(name: str, ours: Step, theirs: Step, rounds: int) -> None:
    """Run both in turn and print the JSON line."""
    for step in (ours, theirs):
        step()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    speed = [DOCUMENTS * LENGTH / statistics.median(column) for column in zip(*pairs, strict=True)]
    row = {
        "name": name,
        "ours": round(speed[0]),
        "peer": round(speed[1]),
        "ratio": round(speed[0] / speed[1], 2),
        "unit": "tokens per second",
        "ours_added_bytes": added_bytes(ours),
        "peer_added_bytes": added_bytes(theirs),
    }
    print(json.dumps(row), flush=True)


def profile(step: Step) -> None:
    """Print where our step spends its time."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--eager", action="store_true", help="compare with transformers' loop over experts too")
    parser.add_argument("--profile", action="store_true", help="show where our step spends its time, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    ours = our_step()
    if arguments.profile:
        profile(ours)
        return
    accounting = Accounting.of(CONFIG)
    print(json.dumps({"parameters": accounting.total_parameters, "active": accounting.active_parameters}))
    compare("train_step/transformers", ours, their_step(None), arguments.rounds)
    if arguments.eager:
        compare("train_step/transformers-eager-experts", ours, their_step("eager"), arguments.rounds)


if __name__ == "__main__":
    main()
