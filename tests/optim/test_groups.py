import copy

import pytest
import torch
from torch import nn

from octavo.errors import ConfigError
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig
from octavo.model.lora import LoraConfig, add_lora
from octavo.model.transformer import Transformer
from octavo.optim.groups import OptimizerConfig, build_optimizer, role_of

SPARSE = ModelConfig(
    vocab_size=20,
    width=8,
    layers=2,
    ffn_width=12,
    attention=MLAConfig(heads=2, kv_rank=4, nope_dim=4, rope_dim=2, v_dim=4),
    moe=MoEConfig(experts=4, experts_per_token=2, expert_width=8),
    mtp_layers=1,
)
DENSE = ModelConfig(
    vocab_size=20,
    width=8,
    layers=1,
    ffn_width=12,
    attention=GQAConfig(heads=2, kv_heads=1, qkv_bias=True),
    tie_embeddings=True,
)


def roles(model: nn.Module) -> dict[str, str]:
    return {name: role_of(name, parameter) for name, parameter in model.named_parameters()}


def test_every_parameter_has_the_role_of_its_name():
    found = roles(Transformer(SPARSE))
    assert {name for name, role in found.items() if role == "table"} == {
        "embed.weight",
        "head.weight",
        "layers.1.ffn.router.weight",
        "mtp.0.block.ffn.router.weight",
    }
    assert {name for name, role in found.items() if role == "vector"} == {name for name in found if "norm" in name}
    assert found["layers.1.ffn.experts.gate_up_EDF"] == found["mtp.0.project.weight"] == "matrix"
    assert all(role == "vector" for name, role in roles(Transformer(DENSE)).items() if name.endswith("bias"))


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("config", [SPARSE, DENSE], ids=["sparse", "dense"])
def test_every_parameter_is_trained_once(kind, config):
    model = Transformer(config)
    optimizer = build_optimizer(model, OptimizerConfig(kind=kind, learning_rate=1e-3))
    trained = [id(parameter) for parameter in optimizer.parameters]
    assert sorted(trained) == sorted(id(parameter) for parameter in model.parameters())
    for group in optimizer.param_groups:
        one_dimensional = {parameter.ndim < 2 for parameter in group["params"]}
        assert one_dimensional == {group["weight_decay"] == 0.0}


def test_rates_follow_role_and_factor():
    config = OptimizerConfig(learning_rate=1e-3, matrix_learning_rate=2e-2)
    optimizer = build_optimizer(Transformer(SPARSE), config)
    optimizer.scale_rates(0.5)
    assert {group["lr"] for group in optimizer.param_groups if "parts" in group} == {1e-2}
    assert {group["lr"] for group in optimizer.param_groups if "parts" not in group} == {5e-4}
    optimizer.scale_rates(1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3, 2e-2}


def test_state_goes_on_bit_for_bit():
    def steps(model, optimizer, count, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(count):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
            optimizer.zero_grad()

    config = OptimizerConfig(learning_rate=1e-2)
    torch.manual_seed(0)
    whole = Transformer(SPARSE)
    whole_optimizer = build_optimizer(whole, config)
    steps(whole, whole_optimizer, 2, seed=1)
    resumed = Transformer(SPARSE)
    resumed.load_state_dict(whole.state_dict())
    resumed_optimizer = build_optimizer(resumed, config)
    resumed_optimizer.load_state_dict(copy.deepcopy(whole_optimizer.state_dict()))
    steps(whole, whole_optimizer, 2, seed=2)
    steps(resumed, resumed_optimizer, 2, seed=2)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_said():
    model = Transformer(DENSE)
    model.embed.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1e-3))
    assert id(model.embed.weight) not in {id(parameter) for parameter in optimizer.parameters}
    with pytest.raises(ConfigError, match="nothing to train"):
        build_optimizer(model.requires_grad_(False), OptimizerConfig(learning_rate=1e-3))


def test_factors_of_adapters_go_to_adamw_without_decay():
    model = Transformer(SPARSE)
    add_lora(model, LoraConfig(rank=4, targets=("attention", "ffn", "experts", "router")))
    found = roles(model)
    factors = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert factors == {name for name, role in found.items() if role == "adapter"}
    assert any("experts" in name for name in factors)
    optimizer = build_optimizer(model, OptimizerConfig(kind="muon", learning_rate=1e-3, matrix_learning_rate=1.0))
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (1e-3, 0.0, len(factors))
    assert optimizer.state_dict().keys() == {"adamw"}


def test_state_of_other_optimizers_is_refused():
    model = Transformer(DENSE)
    muon = build_optimizer(model, OptimizerConfig(learning_rate=1e-3))
    adamw = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=1e-3))
    with pytest.raises(ValueError, match=r"\['adamw'\], expected \['adamw', 'muon'\]"):
        muon.load_state_dict(adamw.state_dict())
