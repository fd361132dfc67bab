"""The world: ranks from the environment, sums over ranks, seeds worked by hand, generators that go on."""

import os
import random
import socket
import subprocess
import sys

import numpy
import pytest
import torch

from octavo.errors import ConfigError
from octavo.world import (
    World,
    choose_device,
    derive_seed,
    fast_bfloat16,
    preferred_dtype,
    rng_state,
    seed_everything,
    set_rng_state,
    set_threads,
)

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_ranks(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_f0_imports_no_torch():
    script = """
import sys
import octavo.config, octavo.errors, octavo.rundir, octavo.storage, octavo.world
print("torch" in sys.modules, "numpy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False False\n"


def test_alone_nothing_is_summed():
    for world in (World.single(), World.from_environment(device="cpu")):
        assert (world.rank, world.size, world.device, world.dtype) == (0, 1, torch.device("cpu"), torch.float32)
        assert world.is_main
        tensor = torch.tensor([1.0, 2.0])
        assert world.all_reduce_(tensor) is tensor
        assert tensor.tolist() == [1.0, 2.0]
        world.barrier()
        world.close()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "environment variable WORLD_SIZE: expected a whole number, got 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 and WORLD_SIZE=2: expected 0 <= RANK < WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0: expected 0 <= RANK < WORLD_SIZE"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost"},
            "WORLD_SIZE=2, but MASTER_PORT not set: start the ranks with torchrun",
        ),
    ],
)
def test_variables_that_contradict_are_one_line(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        World.from_environment(device="cpu")
    assert str(caught.value) == message


def test_two_ranks_sum_and_wait(tmp_path):
    script = """
import torch
from octavo.world import World
torch.set_num_threads(1)
world = World.from_environment(device="cpu")
total = world.all_reduce_(torch.tensor([float(world.rank + 1), 10.0], dtype=torch.float64))
count = world.all_reduce_(torch.tensor(3))
world.barrier()
print(world.rank, world.size, world.is_main, total.tolist(), int(count), flush=True)
world.close()
"""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    results = [process.communicate(timeout=60) for process in ranks]
    assert [out for out, _ in results] == ["0 2 True [3.0, 20.0] 6\n", "1 2 False [3.0, 20.0] 6\n"], results


def test_seeds_are_63_bits_and_of_their_own():
    # By hand: the first 8 bytes of sha256('[1, "data", 2]'), big-endian, without the lowest bit.
    assert derive_seed(1, "data", 2) == 0xD105E5E06C5001CC >> 1
    paths = [(1,), (2,), (1, "a"), (1, "b"), (1, "a", "b"), (1, "ab"), (1, 2), (1, "2"), (12,), (-1,)]
    seeds = [derive_seed(*path) for path in paths]
    assert len(set(seeds)) == len(paths)
    assert all(0 <= seed < 2**63 for seed in seeds)


def draws():
    return random.random(), numpy.random.rand(), torch.randn(3).tolist(), numpy.random.randn()


def test_the_same_seed_gives_the_same_draws():
    seed_everything(2**62 + 1)
    first = draws()
    seed_everything(2**62 + 1)
    assert draws() == first
    seed_everything(2**62 + 2)
    assert draws() != first


def test_generators_go_on_where_they_were_also_after_a_checkpoint(tmp_path):
    from octavo.checkpoint import load_latest, save_state

    seed_everything(5)
    draws()
    numpy.random.randn()  # leaves a second normal value waiting inside the generator
    state = rng_state()
    save_state(tmp_path, 1, {"rng": state})
    expected = draws()
    draws()
    set_rng_state(state)
    assert draws() == expected
    latest = load_latest(tmp_path)
    assert latest is not None
    set_rng_state(latest[1]["rng"])
    assert draws() == expected


def test_threads_are_set_and_checked():
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        set_threads(before)
    with pytest.raises(ConfigError, match="threads: expected at least 1, got 0"):
        set_threads(0)


def test_bfloat16_is_chosen_by_measurement_alone(monkeypatch):
    assert fast_bfloat16(size=32, repeats=1) > 0
    monkeypatch.setattr("octavo.world.fast_bfloat16", lambda device: 0.012)
    assert preferred_dtype() is torch.float32
    monkeypatch.setattr("octavo.world.fast_bfloat16", lambda device: 4.0)
    assert preferred_dtype() is torch.bfloat16


def test_the_device_chosen_exists():
    assert torch.ones(2, device=choose_device()).sum().item() == 2
