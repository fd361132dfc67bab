import copy

import pytest
import torch

from octavo.errors import ConfigError
from octavo.optim.groups import OptimizerConfig, build_optimizer
from octavo.optim.small_adamw import SmallAdamW


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    # More than one piece, and one whose gradient lies transposed.
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((300, 301), (5,), (1, 2, 3))]


def steps(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape[::-1], generator=generator).permute(
                *reversed(range(parameter.ndim))
            )
        optimizer.step()


def test_with_means_in_float32_it_is_torchs():
    ours, theirs = weights(), weights()
    settings = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    steps(SmallAdamW(ours, **settings, state_dtype=torch.float32), ours, 0, 5)
    steps(torch.optim.AdamW(theirs, **settings), theirs, 0, 5)
    torch.testing.assert_close(ours, theirs)


def test_means_in_bfloat16_change_a_step_by_less_than_two_percent_of_it():
    ours, theirs, before = weights(), weights(), weights()
    settings = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8}
    steps(SmallAdamW(ours, **settings), ours, 0, 50)
    steps(torch.optim.AdamW(theirs, weight_decay=0.0, **settings), theirs, 0, 50)
    for our, their, start in zip(ours, theirs, before, strict=True):
        assert (our - their).norm() < 0.02 * (their - start).norm()


def test_goes_on_bit_for_bit_from_its_state():
    whole, first = weights(), weights()
    settings = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8}
    steps(SmallAdamW(whole, **settings), whole, 0, 6)
    optimizer = SmallAdamW(first, **settings)
    steps(optimizer, first, 0, 3)
    second = copy.deepcopy(first)
    again = SmallAdamW(second, **settings)
    again.load_state_dict(optimizer.state_dict())
    assert {state[name].dtype for state in again.state.values() for name in ("mean", "square")} == {torch.bfloat16}
    steps(again, second, 3, 6)
    assert all(map(torch.equal, second, whole))


def test_by_config():
    layer = torch.nn.Linear(4, 4)
    config = OptimizerConfig(kind="adamw", learning_rate=0.1, adamw_state="bfloat16")
    optimizer = build_optimizer(layer, config)
    layer(torch.ones(4)).sum().backward()
    optimizer.step()
    assert optimizer.state_dict()["adamw"]["state"][0]["mean"].dtype == torch.bfloat16
    with pytest.raises(ConfigError, match=r"betas must be at most 0\.99 where adamw_state is bfloat16"):
        OptimizerConfig.parse({"learning_rate": 0.1, "adamw_state": "bfloat16", "betas": [0.9, 0.999]})
