"""A GGUF file opened for training, saved, and answering: Octavo against `transformers`.

    python benchmarks/open_gguf.py FILE.gguf [--rounds 3] [--threads 2] [--no-peer]

- `open`: seconds from the file in the page cache to a float32 model whose weights can be trained, with its tokenizer;
  `cpu` is processor time, which other work on the machine changes little; transformers is opened once, as it is slow;
- `greedy-64`: 64 greedy tokens for each of ten questions, ours all at once from the engine, theirs one after the other;
- `saved-folder`, `saved-gguf`: how many of the weights return bit for bit from a Hugging Face folder and from a GGUF
  file of kind F32, and how many keys transformers misses or does not know in the folder.

Prints JSON lines with `name`, `ours`, `peer` and `ratio` or `equal`. `--no-peer`: without transformers.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from octavo.model.transformer import Transformer
from octavo.text.template import encode_prompt
from octavo.weights.gguf import write_gguf
from octavo.weights.hf import save_model
from octavo.weights.open import open_model
from questions import CONVERSATIONS, NEW_TOKENS, our_greedy

Opened = TypeVar("Opened")


def show(name: str, ours: Any, peer: Any, **more: Any) -> None:
    print(json.dumps({"name": f"open_gguf/{name}", "ours": ours, "peer": peer, **more}), flush=True)


def timed(work: Callable[[], Opened]) -> tuple[Opened, float, float]:
    """What it gives, wall clock and processor time, seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    opened = work()
    return opened, time.perf_counter() - wall, time.process_time() - cpu


def open_theirs(path: Path) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model, tokenizer


def compare_answers(ours: Transformer, tokenizer: Any, theirs: Any, their_tokenizer: Any) -> None:
    prompts = [encode_prompt(tokenizer, messages) for messages in CONVERSATIONS]
    given = [[{"role": message.role, "content": message.content} for message in turn] for turn in CONVERSATIONS]
    their_prompts = [
        their_tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) for turn in given
    ]
    same = sum(one == list(other) for one, other in zip(prompts, their_prompts, strict=True))
    show("prompt-ids", len(prompts), len(their_prompts), equal=same)
    theirs.generation_config.eos_token_id = None
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        written = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False)
        answers.append(written[0, len(prompt) :].tolist())
    drawn = our_greedy(ours, tokenizer, prompts)
    same = sum(one == other for one, other in zip(drawn, answers, strict=True))
    show(f"greedy-{NEW_TOKENS}", len(drawn), len(answers), equal=same)


def compare_saved(model: Transformer, tokenizer: Any, folder: Path, peer: bool) -> None:
    original = model.state_dict()
    save_model(folder / "model", model, tokenizer)
    write_gguf(folder / "model.gguf", model, tokenizer, "F32")
    for name in ("model", "model.gguf"):
        again = open_model(folder / name)[0].state_dict()
        same = sum(name in again and torch.equal(tensor, again[name]) for name, tensor in original.items())
        more: dict[str, Any] = {"equal": same}
        if peer and name == "model":
            import transformers

            _, found = transformers.AutoModelForCausalLM.from_pretrained(folder / name, output_loading_info=True)
            more |= {key: sorted(found[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
        show(f"saved-{'gguf' if name.endswith('gguf') else 'folder'}", len(again), len(original), **more)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peer", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.path.read_bytes()  # into the page cache
    rounds = [timed(lambda: open_model(arguments.path)) for _ in range(arguments.rounds)]
    (model, tokenizer), *_ = rounds[-1]
    model.eval()
    wall, cpu = (statistics.median(column) for column in zip(*(each[1:] for each in rounds), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    first, rounds = rounds[0][1], []
    peer = None if arguments.no_peer else timed(lambda: open_theirs(arguments.path))
    show(
        "open",
        round(wall, 2),
        peer and round(peer[1], 2),
        ratio=peer and round(wall / peer[1], 3),
        unit="seconds",
        first=round(first, 2),
        cpu={"ours": round(cpu, 2), "peer": peer and round(peer[2], 2)},
    )
    with tempfile.TemporaryDirectory() as folder:
        compare_saved(model, tokenizer, Path(folder), peer is not None)
    if peer is not None:
        compare_answers(model, tokenizer, *peer[0])


if __name__ == "__main__":
    main()
