"""In which language a text is written: the share of its words that a dictionary of that language knows.

DeepSeek-R1 (arXiv:2501.12948, section 2.3.2) rewards the proportion of target-language words in the chain of thought.
Word lists: simplemma (48 languages, no model to fetch).
"""

import re
from functools import lru_cache

from octavo.config import nearest
from octavo.errors import ConfigError

# Two letters say little of a language, and single letters are variables: words are three letters or more.
_WORD = re.compile(r"[^\W\d_]{3,}")


def check_language(language: str) -> None:
    """Raise ConfigError unless there is a dictionary of the language (a two- or three-letter code such as en, pt)."""
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    if language not in SUPPORTED_LANGUAGES:
        raise ConfigError(f"language: no dictionary for {language!r}{nearest(language, SUPPORTED_LANGUAGES)}")


def language_share(text: str, language: str, quoted: str = "") -> float:
    """Share in [0, 1] of the words of `text` that are of `language`; 1.0 for a text without words.

    Numbers and operators are no words. Words that stand in `quoted` (the question) do not count either: repeating a
    name from the question is no choice of language. Raises ConfigError for an unknown language.
    """
    borrowed = {word.casefold() for word in _WORD.findall(quoted)}
    words = [word for word in _WORD.findall(text) if word.casefold() not in borrowed]
    if not words:
        return 1.0
    return sum(_is_word_of(word, language) for word in words) / len(words)


@lru_cache(maxsize=65536)
def _is_word_of(word: str, language: str) -> bool:
    from simplemma import in_target_language  # Reads its dictionary at the first call (tenths of a second).

    check_language(language)
    return in_target_language(word, lang=language) > 0
