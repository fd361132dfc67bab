"""One GRPO step of SmolLM2-135M: ours against TRL's GRPOTrainer, same prompts, same counts of tokens.

    python benchmarks/grpo_step.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--lora] [--steps 3] [--rounds 1]
        [--threads 2] [--prompt-tokens N] [--only ours | theirs]
        [--micro-batch-tokens 512] [--adamw-state float32 | bfloat16] [--sampler-weights exact | int8]
    python benchmarks/grpo_step.py --model SmolLM2-135M-Instruct.Q4_1.gguf --gradients

4 prompts, 8 samples each, exactly 64 tokens a completion (no end token), every parameter trained (or LoRA of rank 16 on
all projections), AdamW, one update a rollout, no KL. The reward is a hash of the text, so no group is tied. Each side
runs in a process of its own, in turn; a step's time is the median over the steps behind the first. Prompts have some
45 tokens; with --prompt-tokens a text of about so many more stands in front of each. Needs trl and peft: pip install
"octavo[bench]". TRL gets its best: no gradient checkpointing, all samples in one batch.
Prints JSON lines: seconds a step (ours also apart: sampling, learning) and peak memory (GB) of each and their ratios.

With --gradients both sides are given the same completions of unequal lengths, log-probs at sampling that differ from
the model's (so that some ratios are clipped) and advantages, and the greatest difference of a gradient is printed,
relative to the greatest entry of its tensor.
"""

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PROMPTS = (
    "What is 17 + 26? Work it out step by step.",
    "A farmer has 12 cows and sells 5 of them. How many legs do the others have?",
    "Name three prime numbers between 20 and 40 and say how you know that they are prime.",
    "Translate into French: the train leaves at half past seven in the morning.",
)
SAMPLES, NEW_TOKENS, LEARNING_RATE, RANK = 8, 64, 1e-5, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def questions(more_tokens: int) -> list[str]:
    """The prompts, each behind a text of about so many tokens."""
    if not more_tokens:
        return list(PROMPTS)
    return [f"{number}: {' word' * more_tokens}. {prompt}" for number, prompt in enumerate(PROMPTS)]


def reward(text: str) -> float:
    """A number in [0, 1) that nobody can learn: equal work for both sides, and no tied group."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def run_ours(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """What each step took."""
    from octavo.engine.config import EngineConfig
    from octavo.engine.engine import Engine
    from octavo.engine.folded import FoldedCompleter
    from octavo.engine.rounded import RoundedCompleter
    from octavo.losses.policy import PolicyConfig
    from octavo.model.lora import LoraConfig, add_lora
    from octavo.optim.groups import OptimizerConfig, build_optimizer
    from octavo.rundir import StageDir, read_jsonl
    from octavo.tasks.asking import PLAINLY
    from octavo.tasks.types import Completion, Grade, GradeStatus, Problem, Rollout
    from octavo.train.grpo import grpo_loss
    from octavo.train.loop import fit
    from octavo.train.progress import Silent
    from octavo.train.rollout_config import RolloutConfig
    from octavo.train.rollouts import RolloutStream
    from octavo.train.types import LoopConfig
    from octavo.weights.open import open_model
    from octavo.world import World

    prompts = questions(arguments.prompt_tokens)

    class Prompts:
        def problem(self, split: str, seed: int, index: int) -> Problem:
            return Problem(id=str(index), task="hash", question=prompts[index % len(prompts)], answer="")

    def score(completed: Sequence[tuple[Problem, Completion]]) -> list[Rollout]:
        fine = Grade(GradeStatus.OK, 1.0)
        return [Rollout(problem, reply, fine, {"hash": reward(reply.text)}) for problem, reply in completed]

    model, tokenizer = open_model(arguments.model)
    encode = functools.partial(PLAINLY.prompt, tokenizer)
    tokenizer.special = dataclasses.replace(tokenizer.special, end_ids=frozenset())
    if arguments.lora:
        add_lora(model, LoraConfig(rank=RANK, alpha=2 * RANK))
    rollouts = RolloutConfig(
        prompts_per_rollout=len(PROMPTS),
        samples_per_prompt=SAMPLES,
        max_completion_tokens=NEW_TOKENS,
        micro_batch_tokens=arguments.micro_batch_tokens,
        max_resamples=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        stage, world = StageDir(Path(folder)), World.single()
        engine = Engine(model, tokenizer, EngineConfig(max_rows=64))
        completer = FoldedCompleter(engine, model) if arguments.lora else engine
        policy = PolicyConfig()
        if arguments.sampler_weights == "int8":
            completer = RoundedCompleter(model, tokenizer, EngineConfig(max_rows=64))
            policy = PolicyConfig(importance_cap=2.0)
        stream = RolloutStream(
            Prompts(), completer, score, encode, rollouts, "dapo", world, stage, seed=0, observer=Silent()
        )
        adamw = OptimizerConfig(
            kind="adamw", learning_rate=LEARNING_RATE, betas=(0.9, 0.99), adamw_state=arguments.adamw_state
        )
        optimizer = build_optimizer(model, adamw)
        loop = LoopConfig(steps=arguments.steps, checkpoint_every_seconds=None)
        loss = functools.partial(grpo_loss, policy)
        fit(model, optimizer, stream, loss, loop, world, stage, stream_metrics=stream.metrics)
        rows = read_jsonl(stage.metrics)
    assert all(row["completion_tokens"] == NEW_TOKENS and row["tied_groups"] == 0 for row in rows), rows
    return [{"seconds": row["seconds"], "sampling_seconds": row["sampling_seconds"]} for row in rows]


def trl_trainer(model_path: Path, folder: str, lora: bool, steps: int, prompts: Sequence[str], callbacks: list):
    """TRL's trainer on the same weights."""
    import warnings

    import torch
    import transformers
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from octavo.weights.hf import save_model
    from octavo.weights.open import open_model

    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()

    def rewards(completions: list, **kwargs: object) -> list[float]:
        return [reward(completion[0]["content"]) for completion in completions]

    model, tokenizer = open_model(model_path)
    save_model(Path(folder) / "model", model, tokenizer)
    del model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32)
    config = GRPOConfig(
        output_dir=f"{folder}/out",
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=len(PROMPTS) * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=NEW_TOKENS,
        generation_kwargs={"min_new_tokens": NEW_TOKENS},
        loss_type="dapo",
        beta=0.0,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_steps=steps,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
    )
    adapter = None
    if lora:
        from peft import LoraConfig

        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM")
    return GRPOTrainer(
        model=theirs,
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in prompts]}),
        processing_class=transformers.AutoTokenizer.from_pretrained(f"{folder}/model", padding_side="left"),
        callbacks=callbacks,
        peft_config=adapter,
    )


def run_theirs(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """What each step took."""
    import transformers

    class Clock(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.at = [time.perf_counter()]

        def on_step_end(self, args, state, control, **kwargs):
            self.at.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        prompts = questions(arguments.prompt_tokens)
        trl_trainer(arguments.model, folder, arguments.lora, arguments.steps, prompts, [clock]).train()
    return [{"seconds": after - before} for before, after in itertools.pairwise(clock.at)]


def compare_gradients(model_path: Path) -> None:
    """Print the greatest relative difference of a gradient."""
    import copy

    import torch

    from octavo.losses.logprobs import token_logprobs
    from octavo.losses.policy import PolicyConfig
    from octavo.tasks.types import Completion
    from octavo.train.grpo import grpo_loss
    from octavo.train.samples import Sample, pack_samples
    from octavo.weights.names import hugging_face_views
    from octavo.weights.open import open_model

    generator = torch.Generator().manual_seed(0)
    model, tokenizer = open_model(model_path)
    rows = []
    for prompt in ("What is 17 + 26?", "Name three prime numbers between 20 and 40."):
        prompt_ids = tuple(tokenizer.encode(prompt))
        for length in (16, 7, 1, 11):
            ids = torch.randint(1000, 20_000, (length,), generator=generator)
            with torch.no_grad():
                inputs = torch.cat((torch.tensor(prompt_ids), ids))
                hidden = model(inputs[None, :-1], torch.arange(len(inputs) - 1)[None])[0, len(prompt_ids) - 1 :]
            logprobs = token_logprobs(hidden, model.head_weight_VD, ids) + 0.3 * torch.randn(
                length, generator=generator
            )
            rows.append((prompt_ids, ids.tolist(), logprobs, float(torch.randn((), generator=generator))))
    total = sum(len(ids) for _, ids, _, _ in rows)
    samples = (
        Sample(Completion(prompt, tuple(ids), tuple(logprobs.tolist()), "", "length"), advantage, 1.0)
        for prompt, ids, logprobs, advantage in rows
    )
    for batch in pack_samples(samples, micro_batch_tokens=40):
        loss = grpo_loss(PolicyConfig(clip_low=0.2, clip_high=0.2), model.train(), batch, 0.0)
        (loss.loss_sum / total).backward()
    twin = copy.deepcopy(model)
    for to, parameter in zip(twin.parameters(), model.parameters(), strict=True):
        to.data = parameter.grad
    ours = hugging_face_views(twin)[0]

    def padded(sequences: list[torch.Tensor], side: str) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_side=side)

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(model_path, folder, False, 1, PROMPTS, [])
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        loss = trainer._compute_loss(
            trainer.model,
            {
                "prompt_ids": padded([torch.tensor(prompt) for prompt, _, _, _ in rows], "left"),
                "prompt_mask": padded([torch.ones(len(prompt)).long() for prompt, _, _, _ in rows], "left"),
                "completion_ids": padded([torch.tensor(ids) for _, ids, _, _ in rows], "right"),
                "completion_mask": padded([torch.ones(len(ids)).long() for _, ids, _, _ in rows], "right"),
                "old_per_token_logps": padded([logprobs for _, _, logprobs, _ in rows], "right"),
                "advantages": torch.tensor([advantage for _, _, _, advantage in rows]),
                "num_items_in_batch": torch.tensor(total),
            },
        )
        loss.backward()
    theirs = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    assert theirs.keys() <= ours.keys(), theirs.keys() - ours.keys()
    worst, name = max((float((ours[x] - grad).abs().max() / grad.abs().max()), x) for x, grad in theirs.items())
    row = {"name": "grpo-gradient/trl", "greatest_relative_difference": worst, "of": name, "tensors": len(theirs)}
    print(json.dumps(row), flush=True)


def measure(side: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Medians over the steps and peak memory in GB of one side, in a process of its own."""
    command = [sys.executable, __file__, "--model", str(arguments.model), "--side", side]
    command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
    command += ["--micro-batch-tokens", str(arguments.micro_batch_tokens), "--adamw-state", arguments.adamw_state]
    command += ["--sampler-weights", arguments.sampler_weights, "--prompt-tokens", str(arguments.prompt_tokens)]
    done = subprocess.run(command + ["--lora"] * arguments.lora, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    steps = result["steps"][1:]
    return {key: statistics.median(step[key] for step in steps) for key in steps[0]} | {"peak_gb": result["peak_gb"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file or model folder")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--steps", type=int, default=3, help="at least 2; the first warms up")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--micro-batch-tokens", type=int, default=512, help="ours; fewer need less memory")
    parser.add_argument("--adamw-state", choices=("float32", "bfloat16"), default="float32", help="ours")
    parser.add_argument("--sampler-weights", choices=("exact", "int8"), default="exact", help="ours")
    parser.add_argument("--prompt-tokens", type=int, default=0, help="about so many tokens in front of each prompt")
    parser.add_argument("--only", choices=("ours", "theirs"))
    parser.add_argument("--gradients", action="store_true", help="compare gradients, and nothing else")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.gradients:
        compare_gradients(arguments.model)
        return
    if arguments.side:
        import torch

        torch.set_num_threads(arguments.threads)
        steps = run_ours(arguments) if arguments.side == "ours" else run_theirs(arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({"steps": steps, "peak_gb": peak}))
        return
    if arguments.only:
        print(json.dumps({arguments.only: measure(arguments.only, arguments)}))
        return
    pairs = [(measure("ours", arguments), measure("theirs", arguments)) for _ in range(arguments.rounds)]
    name = "grpo-step-lora/trl" if arguments.lora else "grpo-step/trl"
    for key in ("seconds", "peak_gb"):
        ours, peer = (statistics.median(pair[side][key] for pair in pairs) for side in (0, 1))
        row = {"name": f"{name}/{key}", "ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(peer / ours, 2)}
        if key == "seconds":
            row["ours_sampling"] = round(statistics.median(pair[0]["sampling_seconds"] for pair in pairs), 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
