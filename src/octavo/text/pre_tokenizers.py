"""How text is split before pairs are merged: llama.cpp's names, and the definitions that the models published.

GGUF files hold only a name (`tokenizer.ggml.pre`); what it stands for is written into llama.cpp. The expressions here
are those of the families' tokenizer.json; llama.cpp's own are adapted to its smaller dialect, and split alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# As escapes: some of these letters have twins that editors put in their place.
_DEEPSEEK_LETTERS = (  # letters of scripts that have two cases
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4"
    "\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a"
    "\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_DEEPSEEK_MARKS = "!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002"
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_CHINESE_JAPANESE = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^" + "\r\n" + r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[" + "\r\n" + r"]*|\s*[" + "\r\n" + r"]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTES, _GPT2 = _byte_level(False), _byte_level(True)
"""Bytes as characters; the same behind the expression of GPT-2."""
_NFC = {"type": "NFC"}


@dataclass(frozen=True)
class PreTokenizer:
    """What one of llama.cpp's names stands for."""

    steps: tuple[dict[str, Any], ...]
    """Pre-tokenizers of the `tokenizers` library, one after the other."""
    normalizer: dict[str, Any] | None = None
    ignore_merges: bool = False
    """Whether a whole word that is in the vocabulary is taken as it is."""
    add_bos: bool = False
    """Whether texts begin with BOS where the file does not say."""

    def definition(self) -> dict[str, Any]:
        """As tokenizer.json has it."""
        return self.steps[0] if len(self.steps) == 1 else {"type": "Sequence", "pretokenizers": list(self.steps)}


# Where one definition has several names, the first is written.
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "smollm": PreTokenizer((_DIGITS, _GPT2)),
    "gpt-2": PreTokenizer((_GPT2,)),
    "olmo": PreTokenizer((_GPT2,), _NFC),
    "qwen2": PreTokenizer((_split(_QWEN2), _BYTES), _NFC),
    "deepseek-r1-qwen": PreTokenizer((_split(_QWEN2), _BYTES)),
    "llama-bpe": PreTokenizer((_split(_LLAMA3), _BYTES), ignore_merges=True, add_bos=True),
    "smaug-bpe": PreTokenizer((_split(_LLAMA3), _BYTES)),
    "tekken": PreTokenizer((_split(_TEKKEN), _BYTES), ignore_merges=True, add_bos=True),
    "deepseek-v3": PreTokenizer((_split(r"\p{N}{1,3}"), _split(_CHINESE_JAPANESE), _split(_DEEPSEEK3), _BYTES)),
    "deepseek-llm": PreTokenizer(
        (
            _split("[\r\n]"),
            _split(rf"\s?[{_DEEPSEEK_LETTERS}]+"),
            _split(rf"\s?[{_DEEPSEEK_MARKS}]+"),
            _split(r"\s+$"),
            _split(_CJK),
            _DIGITS,
            _BYTES,
        )
    ),
    "deepseek-coder": PreTokenizer(
        (_split("[\r\n]"), _split(r"\s?\p{L}+"), _split(r"\s?\p{P}+"), _split(_CJK), _DIGITS, _BYTES)
    ),
    # Further names of the same.
    **dict.fromkeys(("llama3", "llama-v3", "pixtral"), PreTokenizer((_split(_LLAMA3), _BYTES), None, True, True)),
    "dbrx": PreTokenizer((_split(_LLAMA3), _BYTES)),
    "megrez": PreTokenizer((_split(_QWEN2), _BYTES), _NFC),
    "mpt": PreTokenizer((_GPT2,), _NFC),
    **dict.fromkeys(("phi-2", "exaone4"), PreTokenizer((_GPT2,))),
    **dict.fromkeys(("starcoder", "refact", "command-r"), PreTokenizer((_DIGITS, _GPT2))),
}


def name_of(definition: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for the splitting of a tokenizer.json; None if it has none.

    Normalizers only choose between names: llama.cpp applies none, but NFC changes only text that is not in it already.
    """
    wanted = (_comparable(definition.get("pre_tokenizer")), bool(definition["model"].get("ignore_merges")))
    normalizer = definition.get("normalizer") or {}
    normalizers = [step["type"] for step in normalizer.get("normalizers", [normalizer] if normalizer else [])]
    if not set(normalizers) <= {"NFC"}:
        return None
    names = [
        (name, kind.normalizer is not None)
        for name, kind in PRE_TOKENIZERS.items()
        if (_comparable(kind.definition()), kind.ignore_merges) == wanted
    ]
    return next((name for name, nfc in names if nfc == bool(normalizers)), names[0][0] if names else None)


def _comparable(pre_tokenizer: Any) -> Any:
    """Steps without what changes no token: `trim_offsets`, and sequences inside sequences or of one step."""
    if not isinstance(pre_tokenizer, Mapping):
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return [step for inner in pre_tokenizer["pretokenizers"] for step in _comparable(inner)]
    return [{key: value for key, value in pre_tokenizer.items() if key != "trim_offsets"}]
