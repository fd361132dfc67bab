"""Configs: one clear line for each mistake, exact types, overrides, YAML as people expect it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from octavo.config import Config, apply_overrides, load_yaml, nearest
from octavo.errors import ConfigError


class Speed(StrEnum):
    SLOW = "slow"
    FAST = "fast"


class Round(Config):
    kind: Literal["round"] = "round"
    radius: int = Field(gt=0)
    edge: int = 1


class Square(Config):
    kind: Literal["square"] = "square"
    side: int


class Room(Config):
    shape: Annotated[Round | Square, Field(discriminator="kind")]
    others: tuple[Annotated[Round | Square, Field(discriminator="kind")], ...] = ()
    rates: dict[str, float] = Field(default_factory=dict)
    speed: Speed = Speed.SLOW
    folder: Path | None = None
    open: bool = True


def message(values, where="recipe.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        Room.parse(values, where)
    return str(caught.value)


ROUND = {"kind": "round", "radius": 2}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # A misspelt key is reported as such, not as the missing one; the tag `round` is not in the path.
        (
            {"shape": {"kind": "round", "raduis": 2}},
            "recipe.yaml: unknown key shape.raduis (did you mean radius?) (and 1 more)",
        ),
        ({"shape": {"kind": "round"}}, "recipe.yaml: shape.radius is missing"),
        ({"shape": ROUND, "sped": "fast"}, "recipe.yaml: unknown key sped (did you mean speed?)"),
        ({"shape": ROUND, "zzz": 1}, "recipe.yaml: unknown key zzz (known: folder, open, others, rates, shape, speed)"),
        ({"shape": {"radius": 2}}, "recipe.yaml: shape.kind is missing"),
        ({"shape": {"kind": "rond"}}, "recipe.yaml: shape.kind: unknown value 'rond' (did you mean round?)"),
        ({"shape": {"kind": "round", "radius": 0}}, "recipe.yaml: shape.radius: should be greater than 0, got 0"),
        ({"shape": {"kind": "round", "radius": "2"}}, "recipe.yaml: shape.radius: should be a valid integer, got '2'"),
        (
            {"shape": {"kind": "round", "radius": True}},
            "recipe.yaml: shape.radius: should be a valid integer, got True",
        ),
        ({"shape": ROUND, "open": 1}, "recipe.yaml: open: should be a valid boolean, got 1"),
        (
            {"shape": ROUND, "others": [ROUND, {"kind": "square", "sied": 1}]},
            "recipe.yaml: unknown key others.1.sied (did you mean side?) (and 1 more)",
        ),
        (
            {"shape": ROUND, "rates": {"warm up": "x"}},
            "recipe.yaml: rates.warm up: should be a valid number, got 'x'",
        ),
        (["shape"], "recipe.yaml: expected a group of keys, got ['shape']"),
    ],
)
def test_each_mistake_is_one_line_that_names_the_written_field(values, expected):
    assert message(values) == expected


def test_a_long_or_many_line_input_stays_one_short_line():
    text = message({"shape": {"kind": "round", "radius": "a\nb" * 500}, "x\ny": 1})
    assert "\n" not in text
    assert len(message({"shape": {"kind": "round", "radius": "a\nb" * 500}})) < 160


def test_parse_reads_back_what_dump_writes():
    room = Room.parse({"shape": ROUND, "others": [{"kind": "square", "side": 1}], "speed": "fast", "folder": "a/b"})
    assert room.others == (Square(side=1),)
    assert room.speed is Speed.FAST
    assert Room.parse(room.dump()) == room
    assert Room.parse({"shape": room.shape}).shape == room.shape


@given(st.dictionaries(st.text(min_size=1), st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_and_odd_keys_survive_the_round_trip(rates):
    room = Room(shape=Square(side=1), rates=rates)
    assert Room.parse(room.dump()).rates == rates


def test_overrides_set_nested_values_and_leave_the_original_alone():
    values = {"a": {"b": 1, "c": [1, 2]}, "none": None}
    changed = apply_overrides(values, ["a.b=2", "a.d.e=[x, 1e-3]", "f=true", "none.x=1", "g=a=b"])
    assert changed == {
        "a": {"b": 2, "c": [1, 2], "d": {"e": ["x", 0.001]}},
        "none": {"x": 1},
        "f": True,
        "g": "a=b",
    }
    assert values == {"a": {"b": 1, "c": [1, 2]}, "none": None}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b", "--set 'a.b': expected key.subkey=value"),
        ("=1", "--set '=1': expected key.subkey=value"),
        ("a..b=1", "--set 'a..b=1': expected key.subkey=value"),
        ("a.b.c=1", "--set 'a.b.c=1': a.b is a value (1), not a group of keys"),
    ],
)
def test_a_bad_override_says_what_is_expected(override, expected):
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"a": {"b": 1}}, [override])
    assert str(caught.value) == expected


@pytest.mark.parametrize("text", ["a: [1", "a: 1\n b: 2", "\x00"])
def test_broken_yaml_is_one_line(text):
    with pytest.raises(ConfigError, match=r"^r\.yaml(:\d+)?: this is not YAML: [^\n]+$"):
        load_yaml(text, "r.yaml")


def test_yaml_reads_exponents_as_numbers_and_refuses_a_key_given_twice():
    assert load_yaml("[1e-3, 2E5, -1.5e+2, 1., .5, 1e, e5, 12]", "x") == [0.001, 2e5, -150.0, 1.0, 0.5, "1e", "e5", 12]
    with pytest.raises(ConfigError, match=r"^x:3: .*the key rate is given twice"):
        load_yaml("a: 1\nb:\n  rate: 1\n  rate: 2\n", "x")
    assert load_yaml("base: &b {x: 1, y: 2}\nc: {<<: *b, x: 3}", "x")["c"] == {"x": 3, "y": 2}


def test_nearest_offers_one_name_or_lists_them():
    assert nearest("pretrian", ["pretrain", "sft"]) == " (did you mean pretrain?)"
    assert nearest("qqq", ["b", "a"]) == " (known: a, b)"
    assert nearest("qqq", [f"name{i:02d}" for i in range(20)]).endswith("name11, ...)")
    assert nearest("qqq", []) == ""
