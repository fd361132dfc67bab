"""In which language a text is written: the share of its words that are of one language.

DeepSeek-R1 (arXiv:2501.12948, section 2.3.2) rewards the proportion of target-language words in the chain of thought.

Three means, by language:
- English and Portuguese, in which r1-mini reasons: a dictionary (simplemma), word by word;
- 140 languages: an identifier (py3langid) reads each word with its neighbours, so that words which two languages share
  are of the one that is spoken. Texts of a few words tell it too little; there a dictionary decides, if there is one;
- a few more that share their script with few others: the script alone.
A word in another script than the language's is never of it.
"""

import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from octavo.config import nearest
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_BY_DICTIONARY = frozenset(("en", "pt"))
# Swahili's dictionary takes many seconds to load (five million forms) and knew 64% of a text's words; Hindi's knew 33%.
# Georgian's and Armenian's lack common words, and their scripts tell more.
_NO_DICTIONARY = frozenset(("hi", "hy", "ka", "sw"))
_FEWEST_WORDS = 4  # for the identifier
# Words on each side that an identifier reads with a word: with seven in all, 99% were told right, with three 90%.
_WORDS_AROUND = 3
# Two letters say little of a language, and single letters are variables.
_FEWEST_LETTERS = {"LATIN": 3, "CYRILLIC": 3, "GREEK": 3}
# Written without spaces: a run of so many letters counts as one word. Han and kana stand together in Japanese.
_LETTERS_A_WORD = {"CJK": 2, "THAI": 4, "LAO": 4, "KHMER": 4, "MYANMAR": 4, "TIBETAN": 4}
_HAN = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
# Script by the first word of its letters' Unicode names; languages that are not here are written in Latin letters.
_SCRIPTS = {
    language: script
    for script, languages in {
        "ARABIC": "ar ary arz ckb fa ps sd sdh ug ur",
        "ARMENIAN": "hy",
        "BENGALI": "as bn",
        "CJK": "ja wuu yue zh",
        "CHEROKEE": "chr",
        "CYRILLIC": "ba be bg ce cv kk ky mk mn os ru sah tg tt uk",
        "DEVANAGARI": "bho gom hi mai mr ne new sa",
        "ETHIOPIC": "am ti",
        "GEORGIAN": "ka xmf",
        "GREEK": "el grc",
        "GUJARATI": "gu",
        "GURMUKHI": "pa",
        "HANGUL": "ko",
        "HEBREW": "hbo he yi",
        "KANNADA": "kn",
        "KHMER": "km",
        "LAO": "lo",
        "MALAYALAM": "ml",
        "MYANMAR": "my",
        "NKO": "nqo",
        "ORIYA": "or",
        "SINHALA": "si",
        "TAMIL": "ta",
        "TELUGU": "te",
        "THAANA": "dv",
        "THAI": "th",
        "TIBETAN": "bo dz",
        "TIFINAGH": "zgh",
        "YI": "ii",
    }.items()
    for language in languages.split()
}
# Written in two scripts, so that neither is another language's.
_ANY_SCRIPT = frozenset(("az", "bs", "crh", "hbs", "ku", "sr", "tk", "uz", "uzs"))
# What the identifier calls a language, or a near one that short texts are taken for.
_ALIASES = {
    "nb": ("no", "nn"),
    "nn": ("no",),
    "no": ("nn",),
    "hbs": ("sr", "hr", "bs"),
    "sr": ("hr", "bs"),
    "hr": ("sr", "bs"),
    "bs": ("sr", "hr"),
    "id": ("ms",),
    "ms": ("id",),
    "zh": ("wuu", "yue"),
    "ki": ("kik",),
    "fil": ("tl",),
}


def check_language(language: str) -> None:
    """Raise ConfigError unless the language can be told from others (a code as en, pt, am; of pt-BR, pt counts)."""
    code = _base(language)
    if not (code in _dictionary_languages() or code in _SCRIPTS or code in _ALIASES or code in _identifier().labels):
        known = {*_dictionary_languages(), *_SCRIPTS, *_ALIASES, *_identifier().labels}
        raise ConfigError(f"language: no dictionary for {language!r}, nor another way to tell it{nearest(code, known)}")


def language_share(text: str, language: str, quoted: str = "") -> float:
    """Share in [0, 1] of the words of `text` that are of `language`; 1.0 for a text without words.

    Numbers and operators are no words. Words that stand in `quoted` (the question) do not count either: repeating a
    name from the question is no choice of language. Raises ConfigError for an unknown language.
    """
    code = _base(language)
    if code not in _BY_DICTIONARY:
        check_language(code)
    borrowed = {word.casefold() for word, _ in _words(quoted)}
    words = [(word, script) for word, script in _words(text) if word.casefold() not in borrowed]
    few = len(words) < _FEWEST_WORDS and code in _dictionary_languages() - _NO_DICTIONARY
    by_dictionary = code in _BY_DICTIONARY or few
    right = total = 0.0
    for place, (word, script) in enumerate(words):
        weight = max(1.0, len(word) / _LETTERS_A_WORD[script]) if script in _LETTERS_A_WORD else 1.0
        total += weight
        if code not in _ANY_SCRIPT and script != _SCRIPTS.get(code, "LATIN"):
            continue
        around = words[max(0, place - _WORDS_AROUND) : place + _WORDS_AROUND + 1]
        if _is_word_of(word, code) if by_dictionary else _is_around(around, code):
            right += weight
    return right / total if total else 1.0


def _is_around(words: Sequence[tuple[str, str]], language: str) -> bool:
    names = {language, *_ALIASES.get(language, ())}
    if not names & set(_identifier().labels):
        return True  # all that is known of it is its script, which fits
    return _identified(" ".join(word for word, _ in words)) in names


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Runs of letters (with their marks) of one script, and that script; short ones of alphabets are left out."""
    for script, letters in itertools.groupby(_marked(text), key=lambda pair: pair[1]):
        word = "".join(letter for letter, _ in letters)
        if script and len(word) >= _FEWEST_LETTERS.get(script, 1):
            yield word, script


def _marked(text: str) -> Iterator[tuple[str, str]]:
    """Each character with its script; "" for what is no letter. A mark, as a vowel sign, is of the letter before it."""
    before = ""
    for character in unicodedata.normalize("NFC", text):
        if not unicodedata.category(character).startswith("M"):
            before = _script(character)
        yield character, before


@lru_cache(maxsize=16384)
def _script(character: str) -> str:
    if not unicodedata.category(character).startswith("L"):
        return ""
    script = unicodedata.name(character, "").split(" ")[0]
    return "CJK" if script in _HAN else script


def _base(language: str) -> str:
    return language.partition("-")[0].partition("_")[0].lower()


@lru_cache(maxsize=65536)
def _is_word_of(word: str, language: str) -> bool:
    from simplemma import in_target_language  # Reads its dictionary at the first call (tenths of a second).

    return in_target_language(word, lang=language) > 0


@lru_cache(maxsize=1)
def _dictionary_languages() -> frozenset[str]:
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    return frozenset(SUPPORTED_LANGUAGES)


@lru_cache(maxsize=16384)
def _identified(text: str) -> str:
    return _identifier().classify(text)[0]


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # Its model takes three seconds and 100 MB.

    return LanguageIdentifier.from_model_file(MODEL_FILE)
