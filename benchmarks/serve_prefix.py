"""A long prompt that begins as another one did: its beginning is not read again.

    python benchmarks/serve_prefix.py MODEL [--prefix-tokens 1000] [--rounds 5] [--threads 2]

A server is started. In each round a new text of about so many tokens is sent with one question behind it, then with
another; one token is drawn, so that the time is that of reading the prompt. Prints a JSON line: median seconds of the
first and of the second request, their ratio, and how many tokens of each the server took from its cache.
"""

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

import httpx2

from serve_load import OURS, THINGS, started

QUESTIONS = ("Name the first thing of the list.", "How many things are there?")


def text(number: int, tokens: int) -> str:
    """A list of things that nobody sent before."""
    draw = random.Random(number)
    return f"List {number}: " + ", ".join(draw.choice(THINGS) for _ in range(tokens // 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prefix-tokens", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    command = [sys.executable, "-c", OURS, "serve", f"model={options.model}", "--port", "0"]
    command += ["--threads", str(options.threads)]
    seconds: tuple[list[float], list[float]] = ([], [])
    usage: dict = {}
    with started(command, None) as (_, url), httpx2.Client(base_url=url, timeout=None) as client:
        for number in range(-1, options.rounds):
            for turn, question in enumerate(QUESTIONS):
                content = f"{text(number, options.prefix_tokens)}\n\n{question}"
                body = {"model": "model", "messages": [{"role": "user", "content": content}], "max_tokens": 1}
                begun = time.perf_counter()
                answer = client.post("/v1/chat/completions", json=body)
                took = time.perf_counter() - begun
                answer.raise_for_status()
                if number >= 0:  # the round before loads the model
                    seconds[turn].append(took)
                    usage[turn] = answer.json()["usage"]
    first, second = (statistics.median(each) for each in seconds)
    cached = [usage[turn]["prompt_tokens_details"]["cached_tokens"] for turn in range(2)]
    row = {"name": "serve-prefix", "first_seconds": round(first, 4), "second_seconds": round(second, 4)}
    row |= {"ratio": round(first / second, 1), "prompt_tokens": usage[1]["prompt_tokens"], "cached_tokens": cached}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
