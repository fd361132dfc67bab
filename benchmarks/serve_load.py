"""Many streams at once, some of which leave early: our server against our engine alone and llama-cpp-python's server.

    python benchmarks/serve_load.py MODEL.gguf [--streams 64] [--seconds 120] [--max-tokens 128] [--leave 0.1]
                                    [--threads 2] [--quantize int8] [--peer-python PYTHON] [--skip-peer] [--skip-engine]

MODEL is a .gguf file, which all sides read. As many clients as there are streams ask one question after the other, each
another one, at temperature 1 with a seed of its own; a share of them, drawn at random, leaves after a few pieces. Our
engine alone is given the same requests, refilled as they end, in this process. The peer is started with PYTHON (where
llama-cpp-python[server] is installed); it writes one reply at a time, so that the others wait.

Prints one JSON line for each side: requests done, left and failed, tokens a second, time to the first token (p50, p99);
for our server also its memory before and after, and the rows that are free at the end. "Before" is behind a first load
that goes on until the cache of prompts has filled the memory that it may have: what grows from there on is a leak.
Sides run one after the other; run it on an idle machine.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

THINGS = [
    "a fox",
    "the sea",
    "two clocks",
    "an old map",
    "bread",
    "winter",
    "a violin",
    "the moon",
    "rain",
    "a train",
    "bees",
]
OURS = "from octavo.cli import main; main()"
WARM_SECONDS = 15
SETTLE_SECONDS = 3
START_SECONDS = 120


def question(number: int) -> str:
    draw = random.Random(number)
    first, second = draw.sample(THINGS, 2)
    return f"Story {number}. Tell me a short story about {first} and {second}."


@dataclass
class Tally:
    """What the clients saw."""

    done: int = 0
    left: int = 0
    failed: int = 0
    tokens: int = 0
    first_seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def row(self, name: str, seconds: float) -> dict:
        first = sorted(self.first_seconds)
        return {
            "name": name,
            "done": self.done,
            "left": self.left,
            "failed": self.failed,
            "errors": sorted(set(self.errors))[:3],
            "tokens_per_second": round(self.tokens / seconds, 1),
            "first_token_p50_seconds": round(statistics.median(first), 3) if first else None,
            "first_token_p99_seconds": round(first[int((len(first) - 1) * 0.99)], 3) if first else None,
        }


async def ask(client: httpx2.AsyncClient, body: dict, leave_after: int | None, end: float, tally: Tally) -> None:
    """One request, streamed. Pieces count as tokens, also of replies that the end of the measurement cuts off."""
    started, pieces = time.perf_counter(), 0
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                tally.failed += 1
                tally.errors.append((await answer.aread()).decode()[:200])
                return
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                if '"error"' in line[:20]:
                    tally.failed += 1
                    tally.errors.append(line[:200])
                    return
                if '"content":"' not in line.replace('": "', '":"') or '"role"' in line:
                    continue
                if not pieces:
                    tally.first_seconds.append(time.perf_counter() - started)
                pieces += 1
                if time.perf_counter() < end:
                    tally.tokens += 1
                if leave_after is not None and pieces >= leave_after:
                    tally.left += 1
                    return
        tally.done += 1
    except httpx2.HTTPError as error:
        tally.failed += 1
        tally.errors.append(repr(error)[:200])


async def load(url: str, model: str, options: argparse.Namespace, seconds: float, first_number: int) -> Tally:
    """All clients for so long; what has begun by then is let finish."""
    tally, numbers, draw = Tally(), iter(range(first_number, 10**9)), random.Random(first_number)
    limits = httpx2.Limits(max_connections=options.streams)
    async with httpx2.AsyncClient(base_url=url, timeout=None, limits=limits) as client:
        end = time.perf_counter() + seconds

        async def stream() -> None:
            while time.perf_counter() < end:
                number = next(numbers)
                body = {
                    "model": model,
                    "messages": [{"role": "user", "content": question(number)}],
                    "max_tokens": options.max_tokens,
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "seed": number,
                    "stream": True,
                }
                leave_after = draw.randint(1, 20) if draw.random() < options.leave else None
                await ask(client, body, leave_after, end, tally)

        await asyncio.gather(*(stream() for _ in range(options.streams)))
    return tally


@contextmanager
def started(command: list[str], url: str | None):
    """A server process; without a `url`, it prints its own."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines: list[str] = []
        while url is None:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                sys.exit(f"the server did not start: {''.join(lines)}")
            lines.append(line)
            if found := re.search(r"at (http://\S+:\d+)", line):
                url = found[1]
        if process.stdout is not None:  # nobody reads what it says later
            threading.Thread(target=process.stdout.read, daemon=True).start()
        for _ in range(START_SECONDS * 10):
            try:
                httpx2.get(f"{url}/v1/models", timeout=5)
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        yield process, url
    finally:
        process.terminate()
        process.wait()


def metrics(url: str) -> dict[str, float]:
    lines = httpx2.get(f"{url}/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def our_server(options: argparse.Namespace) -> dict:
    command = [
        sys.executable,
        "-c",
        OURS,
        "serve",
        f"model={options.model}",
        "--port",
        "0",
        "--rows",
        str(options.streams),
    ]
    command += ["--threads", str(options.threads), "--queue", str(2 * options.streams)]
    command += ["--quantize", options.quantize] if options.quantize else []
    with started(command, None) as (process, url):
        kept = [-1.0, 0.0]
        while kept[-1] > 1.01 * kept[-2]:
            asyncio.run(load(url, "model", options, WARM_SECONDS, 1_000_000 * len(kept)))
            kept.append(metrics(url)['octavo_prefix_cache_bytes{model="model"}'])
        time.sleep(SETTLE_SECONDS)
        memory = psutil.Process(process.pid).memory_info
        before = memory().rss
        row = asyncio.run(load(url, "model", options, options.seconds, 0)).row("octavo serve", options.seconds)
        time.sleep(SETTLE_SECONDS)
        state = metrics(url)
        return row | {
            "memory_before_bytes": before,
            "memory_after_bytes": memory().rss,
            "memory_ratio": round(memory().rss / before, 3),
            "prefix_cache_bytes": [kept[-1], state['octavo_prefix_cache_bytes{model="model"}']],
            "free_rows": state['octavo_free_slots{model="model"}'],
            "rows_in_use": state['octavo_rows{model="model"}'],
        }


def peer_server(options: argparse.Namespace) -> dict:
    port = "18437"
    command = [options.peer_python, "-m", "llama_cpp.server", "--model", str(options.model), "--port", port]
    command += ["--n_ctx", "2048", "--n_threads", str(options.threads), "--n_threads_batch", str(options.threads)]
    # Else a new request ends the one before it.
    command += ["--interrupt_requests", "false", "--verbose", "false"]
    with started(command, f"http://127.0.0.1:{port}") as (_, url):
        return asyncio.run(load(url, "model", options, options.seconds, 0)).row("llama-cpp-python", options.seconds)


def engine_alone(options: argparse.Namespace) -> dict:
    import torch

    from octavo.engine.config import EngineConfig
    from octavo.engine.engine import Engine
    from octavo.tasks.types import CompletionRequest, SamplingParams
    from octavo.text.messages import Message
    from octavo.text.template import encode_prompt
    from octavo.weights.open import open_model

    torch.set_num_threads(options.threads)
    model, tokenizer = open_model(options.model, options.quantize)
    engine = Engine(model, tokenizer, EngineConfig(max_rows=options.streams, max_tokens=2048))
    numbers, tally = iter(range(10**9)), Tally()

    def submit() -> None:
        number = next(numbers)
        prompt = tuple(encode_prompt(tokenizer, [Message("user", question(number))]))
        engine.submit(CompletionRequest(prompt, SamplingParams(max_tokens=options.max_tokens, seed=number)))

    def run(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            ended = [event for event in engine.step() if event.completion is not None]
            tally.done += len(ended)
            # Replies that are under way count as far as they have come, at both ends of the measurement alike.
            for _ in ended:
                submit()

    for _ in range(options.streams):
        submit()
    run(min(WARM_SECONDS, options.seconds))
    begun = engine.tokens_drawn
    tally.done = 0
    run(options.seconds)
    tally.tokens = engine.tokens_drawn - begun
    return tally.row("engine alone", options.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--leave", type=float, default=0.1, help="share of the requests whose client leaves early")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quantize", choices=["int8"], help="of our sides")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--skip-engine", action="store_true")
    options = parser.parse_args()
    rows = {"ours": our_server(options)}
    print(json.dumps(rows["ours"]), flush=True)
    if not options.skip_engine:
        rows["engine"] = engine_alone(options)
        print(json.dumps(rows["engine"]), flush=True)
    if not options.skip_peer:
        rows["peer"] = peer_server(options)
        print(json.dumps(rows["peer"]), flush=True)
    speeds = {name: row["tokens_per_second"] for name, row in rows.items()}
    ratios = {
        f"of {name}": round(speeds["ours"] / speed, 2) for name, speed in speeds.items() if name != "ours" and speed
    }
    print(json.dumps({"name": "serve-load", **speeds, **ratios}), flush=True)


if __name__ == "__main__":
    main()
