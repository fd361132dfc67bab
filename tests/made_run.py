"""A run folder as a run leaves it, written by hand in a moment: what readers of run folders are tested on."""

import json
from pathlib import Path

import yaml

from octavo.rundir import LedgerEntry, Manifest, RunDir, SummaryRow
from octavo.storage import append_jsonl, write_json

STAGES = {
    "base": {"kind": "pretrain", "loop": {"steps": 4}},
    "rl": {"kind": "grpo", "loop": {"steps": 10}},
    "eval-rl": {"kind": "eval"},
}
SCORES = {
    "problems": 2, "samples": 2, "pass_at_1": 0.75, "low": 0.3, "high": 0.95, "pass_at_k": 1.0, "maj_at_k": 0.5,
    "mean_completion_tokens": 12.5, "finished_share": 1.0, "failed_gradings": 0, "ungraded_problems": 0,
}  # fmt: skip
RECORD = {
    "id": "sums/held_out/0/0", "task": "sums", "question": "What is 1 + 2?", "gold": "3",
    "answers": ["3", None], "scores": [1.0, None], "correct": [True, None],
}  # fmt: skip


def make_run(folder: Path, finished: bool = False, **recipe: object) -> RunDir:
    """A run whose base has finished and whose rl is at step 6 of 10; or all of it finished."""
    run = RunDir(folder)
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": "tiny", "description": "A recipe of seconds.", "stages": STAGES, "result": "rl"} | recipe
    run.config_path.write_text(yaml.safe_dump(values, sort_keys=False))
    run.stage("base").write_manifest(manifest("base", "pretrain", done=True))
    append_jsonl(run.stage("base").metrics, [base_row(step) for step in range(1, 5)])
    run.stage("rl").write_manifest(manifest("rl", "grpo", done=finished))
    append_jsonl(run.stage("rl").metrics, [rl_row(step) for step in range(1, 11 if finished else 7)])
    append_jsonl(run.stage("rl").rollouts, [rollout(step) for step in range(1, 11 if finished else 7)])
    spent = {"seconds": 12.5, "peak_memory_bytes": 10**9, "joules": 1800.0, "joules_source": "estimated"}
    write_json(run.stage("rl").clock, spent)
    base = LedgerEntry(stage="base", tokens=2048, flops=1e9, seconds=3.5, peak_memory_bytes=5 * 10**8)
    entries = [base.model_copy(update={"joules": 3600.0, "joules_source": "measured"})]
    if finished:
        entries.append(LedgerEntry(stage="rl", tokens=999, flops=2e9, seconds=20.0, peak_memory_bytes=6 * 10**8))
        run.stage("eval-rl").write_manifest(manifest("eval-rl", "eval", done=True))
        evaluation = {"overall": SCORES, "tasks": {"sums": SCORES}, "records": [RECORD]}
        write_json(run.stage("eval-rl").evaluation, evaluation)
        run.write_summary([SummaryRow(stage="rl", pass_at_1=0.75, low=0.3, high=0.95, tokens=999, seconds=20.0)])
    run.write_ledger(entries)
    return run


def manifest(stage: str, kind: str, done: bool) -> Manifest:
    return Manifest(
        stage=stage,
        kind=kind,
        fingerprint="f" * 64,
        config={"config": {"kind": kind}},
        inputs={},
        outputs={},
        seed=7,
        versions={"torch": "2.13.0"},
        machine={"cpu": "a cpu", "threads": 2},
        started_at="2026-01-02T03:04:05+00:00",
        finished_at="2026-01-02T03:05:05+00:00" if done else None,
        status="finished" if done else "running",
    )


def base_row(step: int) -> dict[str, float]:
    row = {"loss": 6.0 / step, "expert_load_max": 3.0, "expert_load_max_1": 2.0, "expert_load_max_2": 3.0}
    return {"step": step, **row, "tokens_per_second": 1000.0, "seconds": 0.5}


def rl_row(step: int) -> dict[str, float]:
    row = {"step": step, "loss": 0.0, "reward": step / 10, "correct": step / 20, "completion_tokens": 30.0 + step}
    if step % 2 == 0:
        row["validation_accuracy"] = step / 12
    return row | {"entropy": 0.5, "tied_groups": 0.25, "seconds": 2.0, "tokens_per_second": 100.0}


def rollout(step: int, completion: str = "<think>1+2=3</think><answer>3</answer>") -> dict[str, object]:
    return {
        "step": step,
        "problem": f"sums/train/0/{step}",
        "task": "sums",
        "question": "What is 1 + 2?",
        "gold": "3",
        "completion": completion,
        "tokens": 17,
        "finish_reason": "stop",
        "status": "ok",
        "reward": 1.1,
        "rewards": {"accuracy": 1.0, "format": 0.1},
        "advantage": 0.7,
        "group_rewards": [1.1, 0.1],
    }


def write_lines(path: Path, rows: list[dict[str, object]], torn: str = "") -> None:
    """Rows as JSONL, and perhaps a line that is not finished."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)
