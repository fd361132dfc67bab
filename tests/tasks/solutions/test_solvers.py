"""Derivations worked by hand: the exact lines."""

import random

import pytest

from octavo.tasks.solutions import (
    base_conversion,
    chain_sum,
    count_bits,
    gcd,
    leg_counting,
    products,
    simple_equations,
    spell_backward,
)
from octavo.tasks.solutions.scribe import Scribe
from octavo.tasks.types import Problem


def equation(text):
    return {"equation": text, "variable": next(c for c in text if c.isalpha())}


def base(text, source, target):
    return {"source_repr": text, "source_base": source, "target_base": target}


CASES = [
    (chain_sum, {"expression": "42 - 17"}, "42-17=25", "25"),
    (chain_sum, {"expression": "5 - -3 + 2"}, "5+3=8. 8+2=10", "10"),
    (chain_sum, {"expression": "3 - 9 - 1"}, "3-9=-6. -6-1=-7", "-7"),
    (chain_sum, {"expression": "7"}, "7", "7"),
    (products, {"expression": "37 * 46"}, "37*40=1480. 37*6=222. 1480+222=1702", "1702"),
    (products, {"expression": "37 * 6"}, "30*6=180. 7*6=42. 180+42=222", "222"),
    (products, {"expression": "6 * 37"}, "6*30=180. 6*7=42. 180+42=222", "222"),
    (products, {"expression": "7 * 8"}, "7*8=56", "56"),
    (products, {"expression": "0 * 8"}, "0*8=0", "0"),
    (products, {"expression": "-7 * 8"}, "7*8=56", "-56"),
    (products, {"expression": "-7 * 0"}, "7*0=0", "0"),
    (products, {"expression": "40 * 50 * 2"}, "40*50=2000. 2000*2=4000", "4000"),
    (gcd, {"numbers": [46, 78]}, "78=1*46+32. 46=1*32+14. 32=2*14+4. 14=3*4+2. 4=2*2+0", "2"),
    (gcd, {"numbers": [12, 6, 9]}, "12=2*6+0. 9=1*6+3. 6=2*3+0", "3"),
    (leg_counting, {"animals": {"human": 6, "tiger": 4}}, "6 humans: 6*2=12. 4 tigers: 4*4=16. 12+16=28", "28"),
    (leg_counting, {"animals": {"snake": 1}}, "1 snake: 1*0=0", "0"),
    (simple_equations, equation("56 - 98*e = -1218"), "98*e=56+1218=1274. e=1274/98=13", "13"),
    (simple_equations, equation("3*x + 5 = 20"), "3*x=20-5=15. x=15/3=5", "5"),
    (simple_equations, equation("3*x = 15"), "x=15/3=5", "5"),
    (simple_equations, equation("x - 5 = 20"), "x=20+5=25", "25"),
    (simple_equations, equation("7 - x = 2"), "x=7-2=5", "5"),
    (spell_backward, {"word": "sun"}, "s u n. n u s", "nus"),
    (count_bits, {"number": 5}, "5=2*2+1. 2=2*1+0. 1=2*0+1. 1+1=2", "2"),
    (base_conversion, base("2e", 16, 5), "2*16+14=46. 46=9*5+1. 9=1*5+4. 1=0*5+1", "141"),
    (base_conversion, base("46", 10, 2), "46=23*2+0. 23=11*2+1. 11=5*2+1. 5=2*2+1. 2=1*2+0. 1=0*2+1", "101110"),
    (base_conversion, base("101", 2, 10), "1*2+0=2. 2*2+1=5", "5"),
    (base_conversion, base("", 7, 2), "0=0. 0=0*2+0", "0"),
]


@pytest.mark.parametrize(("solver", "metadata", "text", "answer"), CASES)
def test_steps_worked_by_hand(solver, metadata, text, answer):
    scribe = Scribe(random.Random(0))
    # No gold answer is given: the steps must come from the operands.
    assert solver.derive(Problem(id="", task="", question="", answer="", metadata=metadata), scribe) == answer
    assert ". ".join(scribe.lines) == text


CHECKS = [
    (chain_sum, {"expression": "42 - 17"}, "25", "25+17=42"),
    (products, {"expression": "37 * 46"}, "1702", "7*6=42, 1702 ~ 2"),
    (gcd, {"numbers": [46, 78]}, "2", "46/2=23. 78/2=39"),
    (leg_counting, {"animals": {"human": 6, "tiger": 4}}, "28", "16+12=28"),
    (simple_equations, equation("56 - 98*e = -1218"), "13", "-98*13=-1274. -1274+56=-1218"),
    (spell_backward, {"word": "sun"}, "nus", "s u n"),
    (count_bits, {"number": 5}, "2", "4+1=5"),
    (base_conversion, base("2e", 16, 5), "141", "1*5+4=9. 9*5+1=46"),
]


@pytest.mark.parametrize(("solver", "metadata", "answer", "text"), CHECKS)
def test_checks_worked_by_hand(solver, metadata, answer, text):
    scribe = Scribe(random.Random(0))
    solver.verify(Problem(id="", task="", question="", answer="", metadata=metadata), answer, scribe)
    assert ". ".join(scribe.lines) == text


@pytest.mark.parametrize(("solver", "metadata", "text", "answer"), CASES)
def test_every_slip_ends_and_keeps_what_stands_before_it(solver, metadata, text, answer):
    problem = Problem(id="", task="", question="", answer="", metadata=metadata)
    clean = Scribe(random.Random(0))
    solver.derive(problem, clean)
    for at in range(clean.results):
        for seed in range(10):
            spoilt = Scribe(random.Random(seed), slip_at=at)
            assert solver.derive(problem, spoilt)
            line = spoilt.slipped_line
            assert line is not None
            assert spoilt.lines[:line] == clean.lines[:line]
            assert len(spoilt.lines) < 50
