"""The languages of the pages: one file each in `languages/`, chosen by the browser, or by a cookie that it keeps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

import yaml

DEFAULT = "en"
COOKIE = "octavo_language"
_RANGE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?")
_MOST_RANGES = 50


@dataclass(frozen=True)
class Language:
    """One language: its code (as in HTML's lang), its own name, its texts."""

    code: str
    name: str
    texts: Mapping[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with `{name}` replaced. Raises KeyError where there is no such text."""
        text = self.texts[key]
        return text.format(**values) if values else text

    def metric(self, name: str) -> str:
        """What a metric is called: its own name where the language has none for it."""
        if match := re.fullmatch(r"expert_load_max_(\d+)", name):
            return self("metric.expert_layer", layer=match[1])
        return self.texts.get(f"metric.{name}", name.replace("_", " "))

    def duration(self, seconds: float) -> str:
        """`0.4 s`, `42 s`, `3 min 05 s`, `2 h 07 min`."""
        if seconds < 10:
            return f"{seconds:.1f} {self('unit.second')}"
        whole = round(min(seconds, 1e9))
        if whole < 60:
            return f"{whole} {self('unit.second')}"
        if whole < 3600:
            return f"{whole // 60} {self('unit.minute')} {whole % 60:02d} {self('unit.second')}"
        return f"{whole // 3600} {self('unit.hour')} {whole % 3600 // 60:02d} {self('unit.minute')}"


class Languages:
    """All languages, read from the package."""

    def __init__(self) -> None:
        folder = resources.files("octavo.serve.pages") / "languages"
        files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
        self.all = {file.name.removesuffix(".yaml"): _read(file.name, file.read_text("utf-8")) for file in files}

    def choose(self, cookie: str | None, accepted: str | None) -> Language:
        """The cookie's, if there is such a language; else the first that the browser would like best; else English.

        `accepted` is the header Accept-Language (RFC 9110, section 12.5.4).
        """
        if cookie in self.all:
            return self.all[cookie]
        wanted = []
        for part in (accepted or "").split(",")[:_MOST_RANGES]:
            if (match := _RANGE.fullmatch(part)) and match[1].lower() in self.all:
                wanted.append((-float(match[2] or 1), len(wanted), match[1].lower()))
        liked = [code for quality, _, code in sorted(wanted) if quality < 0]
        return self.all[liked[0] if liked else DEFAULT]


def _read(file: str, text: str) -> Language:
    values = yaml.safe_load(text)
    return Language(file.removesuffix(".yaml"), values.pop("language"), values)
