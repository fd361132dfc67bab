import io

import pytest
from rich.console import Console

from octavo.sweep_result import SweepResult, Variant, print_sweep


@pytest.fixture
def result():
    first = Variant(value="dapo", seeds=(0, 1), pass_at_1=0.5, low=0.4, high=0.6, by_seed=(0.45, 0.55))
    second = first.model_copy(
        update={"value": "a|b", "difference": 0.1, "difference_low": 0.02, "difference_high": 0.18, "p_value": 0.013}
    )
    return SweepResult(recipe="r", key="zero.policy.kind", stage="eval-zero", problems=64, variants=(first, second))


def test_the_table_shows_the_spread_of_seeds(result):
    shown = io.StringIO()
    print_sweep(result, Console(file=shown, width=120))
    lines = shown.getvalue().splitlines()
    assert "64 held-out problems" in lines[0]
    assert lines[2].split() == ["dapo", "2", "50.0%", "40.0", "to", "60.0%", "45.0%", "55.0%", "-", "-", "-"]
    assert "+10.0%" in lines[3]
    assert "0.013" in lines[3]


def test_the_same_table_as_markdown(result):
    lines = result.markdown().splitlines()
    assert lines[0] == "`zero.policy.kind`, measured by `eval-zero` on 64 held-out problems:"
    assert lines[2].startswith("| value | seeds | pass@1 | 95% interval |")
    assert lines[3].count("---:") == 8
    assert lines[4] == "| dapo | 2 | 50.0% | 40.0 to 60.0% | 45.0% | 55.0% | - | - | - |"
    assert lines[5] == "| a\\|b | 2 | 50.0% | 40.0 to 60.0% | 45.0% | 55.0% | +10.0% | 2.0 to 18.0% | 0.013 |"
    assert lines[7].startswith("Differences are to dapo, paired by problem.")
