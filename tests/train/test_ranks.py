"""Two ranks over gloo give what one gives."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rank_process import run
from tiny_training import stage_dir

from octavo.rundir import read_jsonl
from octavo.world import World


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(rank: int, port: int, trainer: str, folder: Path) -> subprocess.Popen:
    environment = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    command = [sys.executable, str(Path(__file__).with_name("rank_process.py")), trainer, str(folder)]
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("trainer", ["pretrain", "grpo"])
def test_two_ranks_train_as_one(tmp_path, trainer):
    run(trainer, tmp_path / "one", World.single())
    port = free_port()
    processes = [start(rank, port, trainer, tmp_path / "two") for rank in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors

    one, two = (read_jsonl(stage_dir(tmp_path / name).metrics) for name in ("one", "two"))
    assert len(one) == len(two)
    for alone, together in zip(one, two, strict=True):
        # A prompt is read again where its completions are cut apart, so tokens read depend on the cut.
        same = {name: value for name, value in alone.items() if "second" not in name and name != "tokens"}
        assert same == pytest.approx({name: together[name] for name in same}, rel=1e-4, abs=1e-6)
    weights = [torch.load(tmp_path / name / "weights.pt") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-3, atol=1e-4, msg=name)
