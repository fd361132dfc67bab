import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped

from octavo.train.advantages import group_advantages


def advantages(rewards, scored=None, **options):
    rewards_PG = torch.tensor(rewards)
    scored_PG = torch.ones_like(rewards_PG, dtype=torch.bool) if scored is None else torch.tensor(scored)
    return group_advantages(rewards_PG, scored_PG, **options)


def test_values_by_hand():
    # One right of four: mean 1/4, variance 3/16; advantages 3/4 and -1/4 over sqrt(3)/4.
    values_PG, tied_P = advantages([[1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(values_PG, torch.tensor([[3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5)]]))
    assert not tied_P.item()


def test_without_std_it_is_the_distance_from_the_mean():
    values_PG, _ = advantages([[1.0, 0.0, 0.0, 0.0]], scale_by_std=False)
    torch.testing.assert_close(values_PG, torch.tensor([[0.75, -0.25, -0.25, -0.25]]))


def test_what_could_not_be_scored_counts_nowhere():
    # Were the 100 counted, or taken for 0, the others would change.
    values_PG, tied_P = advantages([[1.0, 0.0, 100.0]], [[True, True, False]])
    torch.testing.assert_close(values_PG, torch.tensor([[1.0, -1.0, 0.0]]))
    assert not tied_P.item()


@pytest.mark.parametrize(
    ("rewards", "scored"),
    [
        ([1.1, 1.1, 1.1], [True, True, True]),
        ([0.0, 0.0, 1.0], [True, True, False]),
        ([0.0, 1.0, 1.0], [False, True, False]),
        ([0.0, 1.0, 0.5], [False, False, False]),
    ],
)
def test_tied_groups(rewards, scored):
    values_PG, tied_P = advantages([rewards], [scored])
    assert tied_P.item()
    assert values_PG.abs().max() == 0


def test_tie_tolerance_ignores_small_differences():
    rewards = [[1.10, 1.08, 1.10]]
    assert not advantages(rewards)[1].item()
    assert advantages(rewards, tie_tolerance=0.05)[1].item()


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-2, 2, width=32), min_size=4, max_size=4), min_size=1, max_size=3))
def test_mean_zero_and_std_one_or_tied(rewards):
    values_PG, tied_P = advantages(rewards, tie_tolerance=1e-3)
    for values_G, tied in zip(values_PG, tied_P.tolist(), strict=True):
        assert values_G.mean().item() == pytest.approx(0, abs=1e-5)
        assert values_G.square().mean().item() == pytest.approx(0 if tied else 1, abs=1e-4)


def test_shapes_are_checked():
    checked = jaxtyped(typechecker=beartype)(group_advantages)
    with pytest.raises(TypeCheckError):
        checked(torch.zeros(2, 3), torch.ones(2, 4, dtype=torch.bool))
