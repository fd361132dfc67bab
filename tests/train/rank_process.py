"""One rank of a training run: python rank_process.py TRAINER FOLDER, with RANK and WORLD_SIZE in the environment."""

import functools
import sys
from pathlib import Path

import torch
from tiny_rl import rollout_config, rollout_stream
from tiny_text import plain_source, reading_options, sparse_config, tokenizer
from tiny_training import DENSE, stage_dir, tiny_model, tiny_optimizer

from octavo.losses.policy import PolicyConfig
from octavo.train.grpo import grpo_loss
from octavo.train.loop import fit
from octavo.train.pretrain import PretrainConfig, pretrain
from octavo.train.types import LoopConfig
from octavo.world import World


def run(trainer: str, folder: Path, world: World) -> None:
    stage = stage_dir(folder)
    if trainer == "pretrain":
        model = tiny_model(sparse_config())
        pretrain(model, tokenizer(), plain_source(), PretrainConfig(**reading_options(4)), world, stage, seed=1)
    else:
        model = tiny_model(DENSE)
        stream = rollout_stream(stage, rollout_config(prompts_per_rollout=5, max_resamples=0), model, world=world)
        loss = functools.partial(grpo_loss, PolicyConfig())
        loop = LoopConfig(steps=3)
        fit(model, tiny_optimizer(model, 1e-3), stream, loss, loop, world, stage, stream_metrics=stream.metrics)
    if world.is_main:
        torch.save(model.state_dict(), folder / "weights.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    this_world = World.from_environment()
    run(sys.argv[1], Path(sys.argv[2]), this_world)
    this_world.close()
