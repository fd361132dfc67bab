import pytest

from octavo.errors import ConfigError
from octavo.tasks.language import check_language, language_share
from octavo.tasks.solutions.phrases import PHRASES


def test_counts_the_share_of_words_of_the_language():
    assert language_share("Wait, that is wrong.", "en") == 1.0
    assert language_share("Wait, that is wrong.", "pt") == 0.0
    assert language_share("Espera, isso está errado.", "pt") == 1.0
    assert language_share("Wait, isso está wrong", "en") == pytest.approx(0.5)


def test_numbers_operators_and_variables_are_no_words():
    assert language_share("37*40=1480. x = 5", "en") == 1.0
    assert language_share("", "pt") == 1.0
    assert language_share("37*40=1480, portanto 1480", "en") == 0.0


def test_words_quoted_from_the_question_do_not_count():
    assert language_share("6 Zorgs: 6*2=12. Portanto 12.", "pt", quoted="How many legs have 6 zorgs?") == 1.0
    assert language_share("zorgs", "en") == 0.0


def test_an_unknown_language_is_a_config_error():
    with pytest.raises(ConfigError, match="no dictionary for 'xx'"):
        check_language("xx")
    with pytest.raises(ConfigError, match="no dictionary for 'xx'"):
        language_share("hello", "xx")
    check_language("pt")


@pytest.mark.parametrize(("language", "other"), [("en", "pt"), ("pt", "en")])
def test_the_words_of_worked_solutions_are_of_one_language_only(language, other):
    for wordings in PHRASES[language].values():
        for wording in filter(None, wordings):
            said = wording.format(answer="", work="")
            assert language_share(said, language) == 1.0, said
            assert language_share(said, other) == 0.0, said
