"""The routing decision and its statistics, worked by hand.

Shapes: `R` tokens, `E` experts, `K` chosen experts.
"""

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from octavo.model.config import MoEConfig
from octavo.model.router import Router


def logit(score):
    return torch.tensor(score, dtype=torch.float64).logit().float()


def router_of(scores_RE, bias_E=None, **config):
    """A router and inputs (one axis a token) such that token r has exactly these scores."""
    scores_RE = torch.tensor(scores_RE)
    rows, experts = scores_RE.shape
    values = {"experts": experts, "experts_per_token": 2, "expert_width": 4} | config
    router = Router(rows, MoEConfig.parse(values)).eval()
    with torch.no_grad():
        router.weight.copy_(scores_RE.logit().T)
    if bias_E is not None:
        router.bias_E.copy_(torch.tensor(bias_E))
    return router, torch.eye(rows)


def decision(routing, row=0):
    """Expert -> gate of one token."""
    pairs = zip(routing.experts_RK[row].tolist(), routing.gates_RK[row].tolist(), strict=True)
    return {expert: pytest.approx(gate, abs=1e-6) for expert, gate in pairs}


def route(router, x):
    """What a forward pass of the whole model does."""
    routing = router(x)
    router.count_load()
    return routing


def softmax_router(scores_RE, **config):
    """As `router_of`, for scores that are given up to a factor for each token."""
    router, x = router_of([[0.5] * len(scores) for scores in scores_RE], scoring="softmax", **config)
    with torch.no_grad():
        router.weight.copy_(torch.tensor(scores_RE).log().T)
    return router, x


def test_the_best_scores_are_chosen_and_normalized():
    routing = (lambda router, x: router(x))(*router_of([[0.9, 0.2, 0.6, 0.3], [0.1, 0.4, 0.3, 0.4]]))
    assert decision(routing) == {0: 0.9 / 1.5, 2: 0.6 / 1.5}
    assert decision(routing, 1) == {1: 0.5, 3: 0.5}
    torch.testing.assert_close(routing.scores_RE[0], torch.tensor([0.9, 0.2, 0.6, 0.3]))


def test_the_bias_changes_the_choice_but_not_the_gates():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]], bias_E=[0.0, 0.0, -0.2, 0.2])
    # Biased: 0.9, 0.2, 0.4, 0.5. The gates are made of 0.9 and 0.3.
    assert decision(router(x)) == {0: 0.9 / 1.2, 3: 0.3 / 1.2}


def test_scale_and_gates_as_they_are():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]], routed_scale=2.5)
    assert decision(router(x)) == {0: 1.5, 2: 1.0}
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]], routed_scale=2.0, normalize_gates=False)
    assert decision(router(x)) == {0: 1.8, 2: 1.2}


def test_groups_are_chosen_by_their_two_best():
    """Three groups of three. Sums of the two best: 0.8 + 0.2, 0.6 + 0.5, 0.7 + 0.6; so the 0.8 is out of reach."""
    scores = [[0.8, 0.2, 0.1, 0.6, 0.5, 0.3, 0.7, 0.6, 0.2]]
    router, x = router_of(scores, groups=3, groups_per_token=2, experts_per_token=3)
    assert decision(router(x)).keys() == {6, 3, 7}
    router, x = router_of(scores, groups=3, groups_per_token=1, experts_per_token=3)
    assert decision(router(x)) == {6: 0.7 / 1.5, 7: 0.6 / 1.5, 8: 0.2 / 1.5}
    router, x = router_of(scores, groups=3, groups_per_token=3, experts_per_token=3)
    assert decision(router(x)).keys() == {0, 6, 3} or decision(router(x)).keys() == {0, 6, 7}


def test_groups_are_chosen_by_biased_scores():
    scores = [[0.8, 0.2, 0.1, 0.6, 0.5, 0.3, 0.7, 0.6, 0.2]]
    bias = [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    router, x = router_of(scores, bias_E=bias, groups=3, groups_per_token=1, experts_per_token=2)
    assert decision(router(x)) == {0: 0.8, 1: 0.2}  # 0.8 + (0.2 + 0.5) beats 0.7 + 0.6


def test_groups_with_negative_biases():
    """A dropped group may not come back because every biased score of the kept ones is below 0."""
    router, x = router_of([[0.9, 0.8, 0.2, 0.1]], bias_E=[-3.0, -3.0, -1.0, -1.0], groups=2)
    assert decision(router(x)) == {2: 0.2 / 0.3, 3: 0.1 / 0.3}


def test_groups_of_one_expert():
    router, x = router_of([[0.9, 0.8, 0.2, 0.1]], groups=4, groups_per_token=2)
    assert decision(router(x)).keys() == {0, 1}


def test_load_counts_each_token_once_while_training():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3], [0.1, 0.4, 0.3, 0.4], [0.8, 0.1, 0.7, 0.1]])
    router.train()
    route(router, x)
    assert router.load_E.tolist() == [2, 1, 2, 1]
    route(router, x[:1])  # a second micro-batch adds to the first
    assert router.take_load().tolist() == [3, 1, 3, 1]
    assert router.take_load().tolist() == [0, 0, 0, 0]


def test_load_is_not_counted_outside_training():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]])
    route(router, x)
    router.train()
    with torch.no_grad():
        route(router, x)
    with torch.inference_mode():
        route(router, x)
    assert router.load_E.tolist() == [0, 0, 0, 0]
    assert router.routing is None


def test_load_is_counted_once_under_recomputation(sparse, random_model):
    """Blocks that are run a second time for their gradients, the router among them, count as often as others."""
    model = random_model(sparse(mtp_layers=1)).train()
    ids, positions = torch.randint(0, 50, (2, 9)), torch.arange(9).expand(2, 9)

    def loads():
        hidden = model(ids, positions)
        (hidden.square().sum() + model.mtp_hidden(hidden, ids, positions)[0].square().sum()).backward()
        return [router.take_load() for router in model.routers()]

    expected, calls = loads(), 0
    for block in (*model.layers, model.mtp[0].block):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    inner = model.routers()[0]

    def seen(*_):
        nonlocal calls
        calls += 1

    inner.register_forward_hook(seen)
    found = loads()
    assert calls == 2, "nothing was computed again"
    assert [load.sum() for load in expected] == [2 * 9 * 3] * 3
    assert all(map(torch.equal, found, expected))


def test_taken_load_does_not_change_afterwards():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]])
    router.train()
    route(router, x)
    load = router.take_load()
    route(router, x)
    assert load.tolist() == [1, 0, 1, 0]


def test_bias_goes_up_below_the_mean_and_down_above():
    router, _ = router_of([[0.5] * 4], bias_E=[0.0, 0.1, 0.2, 0.0])
    router.update_bias(torch.tensor([6.0, 1.0, 4.0, 5.0]), rate=0.01)  # the mean is 4
    torch.testing.assert_close(router.bias_E, torch.tensor([-0.01, 0.11, 0.2, -0.01]))


def test_updates_bring_balance():
    """Tokens that all like the same experts are spread out in the end, none left out."""
    torch.manual_seed(0)
    router, _ = router_of([[0.5] * 8] * 6)
    with torch.no_grad():
        router.weight.normal_(0, 0.3)
    x_RD = torch.randn(256, 6) + 1.0
    router.train()
    route(router, x_RD)
    before = router.take_load()
    for _ in range(300):
        route(router, x_RD)
        router.update_bias(router.take_load(), rate=0.005)
    route(router, x_RD)
    after = router.take_load()
    assert before.max() / before.mean() > 1.5
    assert after.max() / after.mean() < 1.1
    assert after.sum() == before.sum() == 512


def test_the_bias_is_no_parameter_but_is_saved():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]])
    assert [name for name, _ in router.named_parameters()] == ["weight"]
    assert router.state_dict().keys() == {"weight", "bias_E"}
    router.train()
    routing = router(x)
    assert not router.bias_E.requires_grad
    routing.gates_RK[0, 0].backward()
    assert router.bias_E.grad is None


def test_gradients_flow_through_the_gates_only():
    """d gate_0 / d logit_0 = s_0 (1 - s_0) s_2 / (s_0 + s_2)^2; experts that are not chosen get nothing."""
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]])
    routing = router(x)
    at = routing.experts_RK[0].tolist().index(0)
    routing.gates_RK[0, at].backward()
    expected = [0.9 * 0.1 * 0.6 / 1.5**2, 0.0, -0.9 * 0.6 * 0.4 / 1.5**2, 0.0]
    torch.testing.assert_close(router.weight.grad[:, 0], torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_training_keeps_the_decision_for_the_balance_loss():
    router, x = router_of([[0.9, 0.2, 0.6, 0.3]])
    router.train()
    assert router(x) is router.routing
    router.eval()(x)
    assert router.routing is None, "a later evaluation must not leave a graph behind"


def test_softmax_scores_add_up_to_one():
    router, x = softmax_router([[8.0, 1.0, 4.0, 3.0]])
    routing = router(x)
    assert decision(routing) == {0: 8 / 12, 2: 4 / 12}
    torch.testing.assert_close(routing.scores_RE[0], torch.tensor([8.0, 1.0, 4.0, 3.0]) / 16)
    router, x = softmax_router([[8.0, 1.0, 4.0, 3.0]], normalize_gates=False, routed_scale=16.0)
    assert decision(router(x)) == {0: 8.0, 2: 4.0}


def test_softmax_groups_are_chosen_by_their_best():
    """Three groups of three. The best are 8, 6 and 7: the second group is out, though its two best add to more."""
    scores = [[8.0, 2.0, 1.0, 6.0, 5.0, 3.0, 7.0, 1.0, 2.0]]
    values = {"groups": 3, "experts_per_token": 3, "normalize_gates": False, "routed_scale": 35.0}
    router, x = softmax_router(scores, groups_per_token=2, **values)
    assert decision(router(x)) in ({0: 8.0, 6: 7.0, 1: 2.0}, {0: 8.0, 6: 7.0, 8: 2.0})
    router, x = softmax_router(scores, groups_per_token=1, **values)
    assert decision(router(x)) == {0: 8.0, 1: 2.0, 2: 1.0}


def test_softmax_has_no_bias():
    """Nothing to save, nothing to update; the load is counted all the same."""
    router, x = softmax_router([[8.0, 1.0, 4.0, 3.0]])
    assert router.state_dict().keys() == {"weight"}
    route(router.train(), x)
    load = router.take_load()
    assert load.tolist() == [1, 0, 1, 0]
    before = router(x)
    router.update_bias(load, rate=10.0)
    assert torch.equal(router(x).gates_RK, before.gates_RK)
