"""Tiny models, streams and runs for the tests of training."""

from pathlib import Path

import torch

from octavo.data.batch import Batch
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig
from octavo.model.transformer import Transformer
from octavo.optim.groups import OptimizerConfig, OptimizerSet, build_optimizer
from octavo.rundir import StageDir, read_jsonl

VOCABULARY = 24
SPARSE = ModelConfig(
    vocab_size=VOCABULARY,
    width=16,
    layers=2,
    ffn_width=16,
    attention=MLAConfig(heads=2, kv_rank=8, nope_dim=4, rope_dim=4, v_dim=4),
    moe=MoEConfig(experts=4, experts_per_token=2, expert_width=8),
    mtp_layers=1,
)
DENSE = ModelConfig(vocab_size=VOCABULARY, width=16, layers=1, ffn_width=24, attention=GQAConfig(heads=2, kv_heads=1))


def tiny_model(config: ModelConfig = SPARSE, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(config)


def tiny_optimizer(model: Transformer, learning_rate: float = 1e-2) -> OptimizerSet:
    return build_optimizer(model, OptimizerConfig(learning_rate=learning_rate))


def random_batch(seed: int, rows: int = 2, tokens: int = 12) -> Batch:
    """Rows of two documents each, a third of the tokens without weight."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCABULARY, (rows, tokens + 1), generator=generator)
    first = tokens // 3
    positions = torch.cat((torch.arange(first), torch.arange(tokens - first))).expand(rows, -1)
    weights = (torch.rand(rows, tokens, generator=generator) > 1 / 3).float()
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights, positions.contiguous())


class RandomStream:
    """Step k is drawn from (seed, k); `micro_batches` says how its rows are cut."""

    def __init__(self, micro_batches: int = 2, rows: int = 4, steps: int | None = None, seed: int = 0) -> None:
        self.micro_batches, self.rows, self.steps, self.seed = micro_batches, rows, steps, seed
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self) -> list[Batch]:
        if self.position == self.steps:
            raise StopIteration
        self.position += 1
        whole = random_batch(1000 * self.seed + self.position, self.rows)
        cut = [
            tensor.chunk(self.micro_batches)
            for tensor in (whole.inputs_BT, whole.targets_BT, whole.weights_BT, whole.positions_BT)
        ]
        return [Batch(*parts) for parts in zip(*cut, strict=True)]

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state) -> None:
        self.position = state["position"]


def stage_dir(path: Path) -> StageDir:
    path.mkdir(parents=True, exist_ok=True)
    return StageDir(path)


def losses(stage: StageDir) -> list[float]:
    return [row["loss"] for row in read_jsonl(stage.metrics)]


def same_weights(left: Transformer, right: Transformer) -> bool:
    others = right.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in left.state_dict().items())
