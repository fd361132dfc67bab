"""The engine against the model itself: what it samples and says must be what a whole, uncached forward pass gives."""

import pytest
import torch

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig
from octavo.model.transformer import Transformer
from octavo.tasks.types import CompletionRequest, SamplingParams

VOCABULARY = 61


@pytest.fixture(params=["mla with experts", "gqa"])
def model(request, way):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    shared = {"vocab_size": VOCABULARY, "width": 32, "layers": 3, "ffn_width": 48, "max_positions": 64, "init_std": 0.2}
    if request.param == "gqa":
        config = ModelConfig(attention=GQAConfig(heads=4, kv_heads=2, qkv_bias=True), tie_embeddings=True, **shared)
    else:
        attention = MLAConfig(heads=4, kv_rank=16, nope_dim=8, rope_dim=4, v_dim=8)
        config = ModelConfig(
            attention=attention, moe=MoEConfig(experts=8, experts_per_token=2, expert_width=16), **shared
        )
    return Transformer(config)


def forward_logprobs(model, ids):
    """log-probs [T, V] of what follows each prefix, by the packed forward pass of training."""
    with torch.no_grad():
        return model.logits(model(torch.tensor([ids]), torch.arange(len(ids))[None])[0]).log_softmax(-1)


def requests(**params):
    torch.manual_seed(1)
    return [
        CompletionRequest(
            tuple(torch.randint(1, VOCABULARY, (length,)).tolist()),
            SamplingParams(max_tokens=14, seed=length, **params),
            3,
        )
        for length in (3, 17, 1, 8, 30)
    ]


@pytest.mark.parametrize("max_rows", [2, 7, 64])
def test_greedy_equals_the_naive_loop(model, toy_tokenizer, max_rows):
    engine = Engine(model, toy_tokenizer, EngineConfig(max_rows=max_rows, prefill_tokens=40))
    for request, group in zip(requests(temperature=0.0), engine.complete(requests(temperature=0.0)), strict=True):
        ids = list(request.prompt_ids)
        while len(ids) < len(request.prompt_ids) + 14:
            ids.append(int(forward_logprobs(model, ids)[-1].argmax()))
            if ids[-1] == 0:
                break
        for completion in group:
            assert completion.ids == tuple(ids[len(request.prompt_ids) :])


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}])
def test_logprobs_are_those_of_the_packed_forward_pass(model, toy_tokenizer, params):
    engine = Engine(model, toy_tokenizer, EngineConfig(max_rows=6))
    for group in engine.complete(requests(**params)):
        for completion in group:
            whole = [*completion.prompt_ids, *completion.ids]
            logprobs_TV = forward_logprobs(model, whole[:-1])[len(completion.prompt_ids) - 1 :]
            expected_T = logprobs_TV.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected_T, atol=1e-4, rtol=0)


def test_new_weights_are_used_and_nothing_of_the_old_survives(model, toy_tokenizer):
    engine = Engine(model, toy_tokenizer, EngineConfig(max_rows=4))
    old = engine.complete(requests())
    model.initialize()
    fresh = Engine(model, toy_tokenizer, EngineConfig(max_rows=4)).complete(requests())
    assert engine.complete(requests()) == fresh
    assert fresh != old


def test_training_goes_on_after_completing(model, toy_tokenizer):
    """Tensors made in inference mode must not have got into the model, and drawing counts as no expert's load."""
    model.train()
    Engine(model, toy_tokenizer).complete(requests())
    assert all(not router.load_E.any() for router in model.routers())
    inputs_BT, positions_BT = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 2]])
    model.logits(model(inputs_BT, positions_BT)).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
