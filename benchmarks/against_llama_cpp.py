"""Exported GGUF files in llama.cpp: whether it reads, asks and answers as we do.

    python benchmarks/against_llama_cpp.py [--model smollm2-135m ...] [--random] [--threads 2]

For each model (a run folder, a model folder, a .gguf file, a name in the cache) and ten questions, on its F32 export:
- `NAME/template`: the prompts that llama.cpp renders from the template in the file, against ours;
- `NAME/prompt-ids`: their token ids; `NAME/text-ids`: ids of prose and of awkward text;
- `NAME/greedy-64`: 64 greedy tokens a prompt, from llama.cpp's cache and from our engine; end tokens end nothing. Where
  one differs, both sides' logits of both tokens are printed;
- `NAME/logits`: the greatest difference of a logit over the ten prompts and what was written behind them.
Then the perplexity of a text by both sides, on the F32 and on the Q8_0 export (`NAME/perplexity-F32`, `-Q8_0`), and of
the two by llama.cpp (`NAME/Q8_0-over-F32`). The text is the beginning of a story of 1889, and for a run solutions of
its recipe's tasks, because it has never read prose.

`--random`: small random models of every architecture that is exported, with an own tokenizer; all but the perplexity.
Prints JSON lines with `name`, `ours`, `peer` and `ratio` or `equal`.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llama_peer import LlamaPeer
from octavo.assess import recipe_of
from octavo.evals.perplexity import english_prose
from octavo.export import perplexity, text_logits
from octavo.model.transformer import Transformer
from octavo.models import find_model
from octavo.stages.corpora import open_corpus
from octavo.stages.pretrain import PretrainStage
from octavo.text.messages import Document
from octavo.text.template import encode_documents, encode_prompt
from octavo.text.tokenizer import Tokenizer
from octavo.weights.gguf import write_gguf
from octavo.weights.open import open_model
from octavo.world import derive_seed
from questions import CONVERSATIONS, NEW_TOKENS, our_greedy
from random_models import RANDOM_MODELS, random_model, random_tokenizer

WINDOW_TOKENS = 256
SOLUTIONS = 64
AWKWARD_TEXT = (
    "  two  spaces\n\n\ttab, 1234567 12.5%, don't I'LL; été 印刷は Книга 🙂👩\u200d🚀 <think>x</think> a_b--c\r\n\n "
)


@dataclass(frozen=True)
class Case:
    name: str
    model: Transformer
    tokenizer: Tokenizer
    documents: Sequence[Document]
    """What perplexity is measured on; empty: not measured."""


def show(name: str, ours: Any, peer: Any, **more: Any) -> None:
    print(json.dumps({"name": name, "ours": ours, "peer": peer, **more}, ensure_ascii=False), flush=True)


def compare(case: Case, folder: Path, threads: int) -> None:
    exact = folder / "exact.gguf"
    write_gguf(exact, case.model, case.tokenizer, "F32")
    context = min(case.model.config.max_positions, 1024)
    peer = LlamaPeer(exact, context, threads)
    try:
        compare_answers(case, peer)
        if not case.documents:
            return
        windows = windows_of(case)
        ours = our_perplexity(case.model, windows)
        theirs = peer.perplexity(windows)
    finally:
        peer.close()
    show(f"{case.name}/perplexity-F32", round(ours, 4), round(theirs, 4), ratio=round(ours / theirs, 5))
    small = folder / "small.gguf"
    write_gguf(small, case.model, case.tokenizer, "Q8_0")
    ours_small = our_perplexity(open_model(small)[0], windows)
    peer = LlamaPeer(small, context, threads)
    try:
        theirs_small = peer.perplexity(windows)
    finally:
        peer.close()
    ratio = round(ours_small / theirs_small, 5)
    show(f"{case.name}/perplexity-Q8_0", round(ours_small, 4), round(theirs_small, 4), ratio=ratio)
    show(
        f"{case.name}/Q8_0-over-F32",
        round(ours_small / ours, 5),
        round(theirs_small / theirs, 5),
        tokens=sum(len(window) - 1 for window in windows),
    )


def compare_answers(case: Case, peer: LlamaPeer) -> None:
    """Templates, tokens, greedy decoding and logits."""
    rendered = [case.tokenizer.template.render(messages) for messages in CONVERSATIONS]
    theirs = [peer.render(messages) for messages in CONVERSATIONS]
    show_equal(f"{case.name}/template", rendered, theirs)
    prompts = [encode_prompt(case.tokenizer, messages) for messages in CONVERSATIONS]
    show_equal(f"{case.name}/prompt-ids", prompts, [peer.encode_prompt(prompt) for prompt in rendered])
    texts = [AWKWARD_TEXT, *english_prose(4000)]
    show_equal(f"{case.name}/text-ids", list(map(case.tokenizer.encode, texts)), list(map(peer.encode_text, texts)))
    ours = our_greedy(case.model, case.tokenizer, prompts)
    answers = [peer.greedy(prompt, NEW_TOKENS) for prompt in prompts]
    places = [parting(case.model, peer, *each) for each in zip(prompts, ours, answers, strict=True)]
    show_equal(f"{case.name}/greedy-{NEW_TOKENS}", ours, answers, differences=[place for place in places if place])
    difference, largest = 0.0, 0.0
    for prompt, answer in zip(prompts, ours, strict=True):
        logits_TV = text_logits(case.model, prompt + answer)
        difference = max(difference, float((logits_TV - torch.from_numpy(peer.logits(prompt + answer))).abs().max()))
        largest = max(largest, float(logits_TV.abs().max()))
    show(f"{case.name}/logits", round(largest, 3), None, greatest_difference=difference)


def show_equal(name: str, ours: Sequence[Any], peer: Sequence[Any], **more: Any) -> None:
    """Count what both sides have alike, and show the first that they do not."""
    pairs = list(zip(ours, peer, strict=True))
    different = next(({"ours": one, "peer": other} for one, other in pairs if one != other), None)
    if different and "differences" not in more:
        more["first_difference"] = different
    show(name, len(ours), len(peer), equal=sum(one == other for one, other in pairs), **more)


def parting(
    model: Transformer, peer: LlamaPeer, prompt: Sequence[int], ours: Sequence[int], theirs: Sequence[int]
) -> dict[str, Any] | None:
    """Where two answers part, with the logits of the two tokens on each side."""
    at = next((place for place, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other), None)
    if at is None:
        return None
    ids, both = [*prompt, *ours[:at]], [ours[at], theirs[at]]
    return {
        "token": at,
        "ids": both,
        "our_logits": [float(text_logits(model, ids)[-1, id_]) for id_ in both],
        "peer_logits": [float(peer.logits(ids)[-1, id_]) for id_ in both],
    }


def windows_of(case: Case) -> list[list[int]]:
    """Each document in pieces that overlap by one token, so that every token but the first is scored once."""
    encoded = encode_documents(case.tokenizer, case.documents, train_on_prompts=True)
    return [
        document.ids[start : start + WINDOW_TOKENS + 1]
        for document in encoded
        for start in range(0, len(document.ids) - 1, WINDOW_TOKENS)
    ]


def our_perplexity(model: Transformer, windows: Sequence[list[int]]) -> float:
    """exp of the mean loss of every token but the first of each window."""
    nats, tokens = 0.0, 0
    for window in windows:
        nats += math.log(perplexity(text_logits(model, window), window)) * (len(window) - 1)
        tokens += len(window) - 1
    return math.exp(nats / tokens)


def given_case(name: str) -> Case:
    """A model of the user's. What a run learned from is what it is scored on; other models read prose."""
    recipe = recipe_of(Path(name))
    documents = [Document(text=text) for text in english_prose()]
    for stage in recipe.stages.values() if recipe else ():
        if isinstance(stage, PretrainStage):
            # Another seed than the run's, so that these are solutions that it has not read.
            source = open_corpus(stage.corpus, recipe.labelled_tasks(), seed=derive_seed(1, "benchmark"))
            documents = [source.document(index) for index in range(SOLUTIONS)]
            break
    model, tokenizer = open_model(find_model(name))
    return Case(Path(name).stem, model.eval(), tokenizer, documents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="a model as octavo chat knows it; repeatable")
    parser.add_argument("--random", action="store_true", help="small random models of every architecture")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = map(given_case, arguments.model)
    if arguments.random:
        tokenizer = random_tokenizer()
        cases = [*cases, *(Case(name, random_model(name), tokenizer, ()) for name in RANDOM_MODELS)]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            compare(case, Path(folder), arguments.threads)


if __name__ == "__main__":
    main()
