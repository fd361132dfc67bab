"""Languages: complete, alike in their places, chosen as the browser wishes."""

import re

import pytest

from octavo.rundir import SummaryRow
from octavo.serve.pages.language import DEFAULT, Languages
from octavo.serve.runs.curves import CHARTS

LANGUAGES = Languages()


def test_there_are_five():
    assert {code: language.name for code, language in LANGUAGES.all.items()} == {
        "en": "English",
        "ru": "Русский",
        "pt": "Português",
        "sv": "Svenska",
        "sw": "Kiswahili",
    }


@pytest.mark.parametrize("code", LANGUAGES.all)
def test_each_says_all_that_english_says_with_the_same_places(code):
    english, other = LANGUAGES.all[DEFAULT].texts, LANGUAGES.all[code].texts
    assert list(other) == list(english)
    for key, text in english.items():
        assert isinstance(other[key], str), key
        assert other[key].strip(), key
        places = r"\{(\w+)\}"
        assert sorted(re.findall(places, other[key])) == sorted(re.findall(places, text)), key


def test_every_chart_and_metric_has_a_name():
    texts = LANGUAGES.all[DEFAULT].texts
    for key, _, metrics in CHARTS:
        assert f"chart.{key}" in texts
        assert all(f"metric.{metric}" in texts for metric in metrics)
    assert SummaryRow.model_fields  # the table's columns are texts of their own
    assert LANGUAGES.all["ru"].metric("expert_load_max_12") == "слой 12"
    assert LANGUAGES.all["ru"].metric("something_new") == "something new"


@pytest.mark.parametrize(
    ("cookie", "accepted", "code"),
    [
        (None, None, "en"),
        (None, "ru-RU,ru;q=0.9,en;q=0.8", "ru"),
        (None, "de, sv;q=0.5, pt-BR;q=0.7", "pt"),
        (None, "sw;q=0, sv;q=0.1", "sv"),
        (None, "de", "en"),
        ("sw", "ru", "sw"),
        ("../../etc/passwd", "ru", "ru"),
        (None, ";;;q=,,\x00", "en"),
        (None, "*", "en"),
        (None, "de," * 100_000 + "ru", "en"),
    ],
)
def test_the_browser_chooses(cookie, accepted, code):
    assert LANGUAGES.choose(cookie, accepted).code == code


def test_durations():
    assert [LANGUAGES.all["en"].duration(seconds) for seconds in (0.42, 42, 185, 7620)] == [
        "0.4 s",
        "42 s",
        "3 min 05 s",
        "2 h 07 min",
    ]
    assert LANGUAGES.all["ru"].duration(185) == "3 мин 05 с"
    assert LANGUAGES.all["en"].duration(1e300)
