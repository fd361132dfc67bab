import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped

from octavo.losses.logprobs import token_logprobs, token_objective
from octavo.native import training


def problem(rows: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float64, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    hidden_RD = torch.randn(rows, width, generator=generator, dtype=dtype, requires_grad=True)
    weight_VD = torch.randn(vocabulary, width, generator=generator, dtype=dtype, requires_grad=True)
    targets_R = torch.randint(vocabulary, (rows,), generator=generator)
    return hidden_RD, weight_VD, targets_R


def plain(hidden_RD, weight_VD, targets_R, temperature=1.0):
    logprobs_RV = (hidden_RD @ weight_VD.T / temperature).log_softmax(-1)
    entropy_R = -(logprobs_RV.exp() * logprobs_RV).sum(-1)
    return logprobs_RV.gather(1, targets_R[:, None]).squeeze(1), entropy_R


def sum_of(rows, logprobs_C):
    return logprobs_C.sum()


def weighted(upstream_R):
    return lambda rows, logprobs_C: (upstream_R[rows] * logprobs_C).sum()


def test_value_by_hand():
    # Logits 0 and ln 3: probabilities 1/4 and 3/4.
    hidden_RD = torch.tensor([[1.0], [1.0]])
    weight_VD = torch.tensor([[0.0], [math.log(3)]])
    total, logprobs_R, entropy_R = token_objective(
        weighted(torch.tensor([1.0, 2.0])), hidden_RD, weight_VD, torch.tensor([0, 1]), with_entropy=True
    )
    torch.testing.assert_close(total, torch.tensor(math.log(0.25) + 2 * math.log(0.75)))
    torch.testing.assert_close(logprobs_R, torch.tensor([math.log(0.25), math.log(0.75)]))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(entropy_R, torch.tensor([entropy, entropy]))


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(0, 9),
    chunk=st.integers(1, 10),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_the_plain_formulas_for_every_chunk(rows, chunk, temperature, seed):
    hidden_RD, weight_VD, targets_R = problem(rows, 4, 7, seed=seed)
    upstream_R = torch.randn(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected_R, expected_entropy_R = plain(hidden_RD, weight_VD, targets_R, temperature)
    expected = torch.autograd.grad(expected_R @ upstream_R, (hidden_RD, weight_VD))
    torch.testing.assert_close(token_logprobs(hidden_RD, weight_VD, targets_R, temperature, chunk), expected_R.detach())
    given = (weighted(upstream_R), hidden_RD, weight_VD, targets_R)
    for with_entropy in (False, True):
        total, logprobs_R, entropy_R = token_objective(*given, with_entropy, temperature, chunk)
        torch.testing.assert_close(total, expected_R @ upstream_R)
        torch.testing.assert_close(logprobs_R, expected_R.detach())
        torch.testing.assert_close(entropy_R, expected_entropy_R.detach() if with_entropy else entropy_R[:0])
        gradients = torch.autograd.grad(3.0 * total, (hidden_RD, weight_VD))
        torch.testing.assert_close([gradient / 3.0 for gradient in gradients], list(expected))
        assert not logprobs_R.requires_grad
        assert not entropy_R.requires_grad


@pytest.mark.parametrize("rows", [0, 3, 4, 9])
@pytest.mark.parametrize("chunk", [None, 2])
def test_the_gradient_of_the_weight_is_added_where_it_has_one(rows, chunk):
    """Over micro-batches, as a training loop does; with 4 columns, 3 and 4 rows are kept as gradients of logits."""
    hidden_RD, weight_VD, targets_R = problem(rows, 4, 7)
    total = plain(hidden_RD, weight_VD, targets_R)[0].sum()
    (expected_VD,) = torch.autograd.grad(total, weight_VD)
    for scale in (1.0, 0.5):
        loss, _, _ = token_objective(sum_of, hidden_RD, weight_VD, targets_R, chunk_tokens=chunk)
        (scale * loss).backward()
    torch.testing.assert_close(weight_VD.grad, 1.5 * expected_VD)


def test_a_weight_that_is_watched_gets_its_gradient_through_autograd():
    hidden_RD, weight_VD, targets_R = problem(3, 4, 7)
    seen = []
    weight_VD.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.clone()))
    for _ in range(2):
        token_objective(sum_of, hidden_RD, weight_VD, targets_R)[0].backward()
    torch.testing.assert_close(seen[1], 2 * seen[0])


@pytest.mark.parametrize("vocabulary", [3, 16, 100, 2000])
def test_kernels_give_what_torch_gives(vocabulary: int, monkeypatch: pytest.MonkeyPatch):
    if not training.serves(torch.zeros(1)):
        pytest.skip("no kernels here")
    hidden_RD, weight_VD, targets_R = problem(9, 5, vocabulary, torch.float32)
    results = []
    for switch in ("1", "0"):
        monkeypatch.setenv(training.SWITCH, switch)
        outputs = token_objective(weighted(torch.arange(9.0)), hidden_RD, weight_VD, targets_R, with_entropy=True)
        results.append([*outputs, *torch.autograd.grad(outputs[0], (hidden_RD, weight_VD))])
    torch.testing.assert_close(*results)


def test_a_function_that_bends_gets_its_slope_at_each_token():
    hidden_RD, weight_VD, targets_R = problem(7, 3, 6)
    expected_R, _ = plain(hidden_RD, weight_VD, targets_R)
    expected = torch.autograd.grad(expected_R.exp().clamp(max=0.2).sum(), (hidden_RD, weight_VD))
    total, _, _ = token_objective(
        lambda rows, logprobs_C: logprobs_C.exp().clamp(max=0.2).sum(), hidden_RD, weight_VD, targets_R, chunk_tokens=2
    )
    torch.testing.assert_close(torch.autograd.grad(total, (hidden_RD, weight_VD)), expected)


def test_goes_backward_once_only():
    hidden_RD, weight_VD, targets_R = problem(5, 3, 6)
    total = token_objective(sum_of, hidden_RD, weight_VD, targets_R)[0]
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="gone through"):
        total.backward()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_gives_no_gradient_that_nobody_needs(frozen: str):
    hidden_RD, weight_VD, targets_R = problem(5, 3, 6)
    (hidden_RD if frozen == "hidden" else weight_VD).requires_grad_(False)
    token_objective(sum_of, hidden_RD, weight_VD, targets_R)[0].backward()
    assert (hidden_RD.grad is None) == (frozen == "hidden")
    assert (weight_VD.grad is None) == (frozen == "weight")


def test_large_logits_stay_finite():
    hidden_RD = torch.tensor([[1.0]])
    weight_VD = torch.tensor([[1e4], [-1e4]])
    torch.testing.assert_close(token_logprobs(hidden_RD, weight_VD, torch.tensor([1])), torch.tensor([-2e4]))


def test_bfloat16_is_summed_in_float32():
    hidden_RD, weight_VD, targets_R = problem(6, 8, 50, torch.bfloat16)
    logprobs_R = token_logprobs(hidden_RD, weight_VD, targets_R)
    assert logprobs_R.dtype == torch.float32
    expected_R, _ = plain((hidden_RD @ weight_VD.T).float(), torch.eye(50), targets_R)
    torch.testing.assert_close(logprobs_R, expected_R)
    token_objective(sum_of, hidden_RD, weight_VD, targets_R)[0].backward()
    assert hidden_RD.grad is not None
    assert hidden_RD.grad.dtype == torch.bfloat16


def test_the_logits_never_exist_whole():
    rows, width, vocabulary, chunk = 64, 4, 1000, 8
    hidden_RD, weight_VD, targets_R = problem(rows, width, vocabulary, torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        outputs = token_objective(sum_of, hidden_RD, weight_VD, targets_R, with_entropy=True, chunk_tokens=chunk)
        outputs[0].backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    # The chunk and its copy for the entropy at most, never the rows x vocabulary of the whole.
    assert largest <= 2 * chunk * vocabulary * 4


def test_shapes_are_checked():
    hidden_RD, weight_VD, targets_R = problem(5, 3, 6, torch.float32)
    checked = jaxtyped(typechecker=beartype)(token_logprobs)
    checked(hidden_RD, weight_VD, targets_R)
    with pytest.raises(TypeCheckError):
        checked(hidden_RD, weight_VD, targets_R[:4])
