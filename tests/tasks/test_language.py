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


TEXTS = {
    "am": "በመጀመሪያ ጥያቄውን አነባለሁ። ሦስት ፖም እና አራት ብርቱካን አሉ፤ ስለዚህ አብረው ሰባት ፍራፍሬዎች ይሆናሉ። ውጤቱን ደግሜ አረጋግጣለሁ።",
    "ar": "أولاً أقرأ السؤال بعناية. لدينا ثلاث تفاحات وأربع برتقالات، إذن المجموع سبع فواكه.",
    "en": "First I read the question. There are three apples and four oranges, so there are seven fruits in all.",
    "hi": "पहले मैं प्रश्न ध्यान से पढ़ता हूँ। तीन सेब और चार संतरे हैं, इसलिए कुल सात फल होते हैं। मैं परिणाम को फिर से जाँचता हूँ।",
    "ka": "ჯერ კითხვას ყურადღებით ვკითხულობ. სამი ვაშლი და ოთხი ფორთოხალი გვაქვს, ამიტომ სულ შვიდი ხილია.",
    "pt": "Primeiro leio a pergunta com atenção. Há três maçãs e quatro laranjas, portanto são sete frutas no total.",
    "ru": "Сначала я внимательно читаю вопрос. У нас три яблока и четыре апельсина, значит всего семь фруктов.",
    "sv": "Först läser jag frågan noga. Det finns tre äpplen och fyra apelsiner, alltså blir det sju frukter.",
    "sw": "Kwanza ninasoma swali kwa makini. Kuna matofaa matatu na machungwa manne, kwa hiyo jumla ni matunda saba.",
    "uk": "Спочатку я уважно читаю запитання. Маємо три яблука та чотири апельсини, отже разом сім фруктів.",
    "zh": "首先我仔细阅读题目。有三个苹果和四个橙子,所以一共有七个水果。我再检查一遍结果,答案是正确的。",
}
"""One train of thought in each language."""


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_is_of_its_language_and_of_no_other(language):
    for other, text in TEXTS.items():
        share = language_share(text, language)
        assert share == 1.0 if other == language else share < 0.25, (language, other)


@pytest.mark.parametrize("language", sorted(set(TEXTS) - {"en"}))
def test_half_a_text_in_english_is_about_half_a_text(language):
    """Also seen from English: scripts without spaces, and those with vowel signs, do not count for less."""
    mixed = f"{TEXTS[language]} {TEXTS['en']}"
    assert 0.35 < language_share(mixed, language) < 0.65
    assert 0.35 < language_share(mixed, "en") < 0.7


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("am", "መልሱ ሰባት ነው"),
        ("ar", "إذن المجموع سبعة"),
        ("hi", "उत्तर सात है"),
        ("hy", "Պատասխանը յոթն է"),
        ("ka", "პასუხი სწორია"),
        ("ru", "Ответ равен семи"),
        ("sv", "Svaret är sju"),
        ("sw", "Jibu ni saba"),
        ("zh", "答案是七"),
    ],
)
def test_a_few_words_are_enough(language, text):
    assert language_share(text, language) == 1.0
    assert language_share("The answer is seven", language) < 0.4
