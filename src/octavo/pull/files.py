"""Which files of a repository are needed, and whether a file is the one that it should be."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from octavo.errors import PullError

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|mtp\.safetensors")
_DESCRIPTION = re.compile(
    r"config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json"
    r"|added_tokens\.json|chat_template\.(jinja|json)|(LICENSE|LICENCE|NOTICE)(\.\w+)?"
)
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl)")
_PART_OF_GGUF = re.compile(r".*-\d{5}-of-\d{5}\.gguf")


@dataclass(frozen=True)
class HubFile:
    """One file as the hub describes it. Large files are named by the sha256 of their content, small ones by git's."""

    name: str
    bytes: int
    sha256: str | None
    git_sha1: str | None

    @property
    def local_name(self) -> str:
        """Its name in our cache: without folders."""
        return PurePosixPath(self.name).name

    def check(self, path: Path, where: str) -> None:
        """Raise PullError, the file then being removed, if its content is not what `where` states."""
        with open(path, "rb") as content:
            if self.sha256 is not None:
                kind, stated, found = "sha256", self.sha256, hashlib.file_digest(content, "sha256").hexdigest()
            else:
                digest = hashlib.sha1(f"blob {os.fstat(content.fileno()).st_size}\0".encode(), usedforsecurity=False)
                digest.update(content.read())
                kind, stated, found = "git sha1", self.git_sha1, digest.hexdigest()
        if found != stated:
            path.unlink()
            raise PullError(
                f"{self.name}: its {kind} is {found}, {where} states {stated}; the file was removed: run again, and if "
                "this comes again, something between here and there alters files"
            )


def needed(names: Iterable[str], repository: str, wanted: str | None = None) -> list[str]:
    """Which files to fetch, the config first: the one GGUF file `wanted`, or a whole Hugging Face folder.

    Raises PullError where there is no such file, or no weights that can be opened without running foreign code.
    """
    names = set(names)
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if wanted is not None:
        if wanted not in names:
            raise PullError(f"{repository} has no file {wanted}{_listed(ggufs)}")
        if _PART_OF_GGUF.fullmatch(wanted):
            raise PullError(f"{repository}: {wanted} is one part of several; choose a whole file{_listed(ggufs)}")
        return [wanted]
    weights = {name for name in names if _WEIGHTS.fullmatch(name)}
    if "model.safetensors" in weights:  # the same once more in parts is not needed
        weights = {name for name in weights if "-of-" not in name and not name.endswith(".index.json")}
    if not any(name.endswith(".safetensors") for name in weights):
        raise PullError(f"{repository} {_without_safetensors(names, ggufs)}")
    for name in ("config.json", "tokenizer.json"):
        if name not in names:
            raise PullError(f"{repository} has no {name}, so it cannot be opened")
    described = {name for name in names if _DESCRIPTION.fullmatch(name)}
    return ["config.json", *sorted(described - {"config.json"}), *sorted(weights)]


def is_pickle(name: str) -> bool:
    """Whether a file of this name is a Python pickle, which can run any code when it is opened."""
    return _PICKLE.fullmatch(name) is not None


def _without_safetensors(names: set[str], ggufs: list[str]) -> str:
    if ggufs:
        return f"holds GGUF files: name one, as owner/name:file.gguf{_listed(ggufs)}"
    pickles = sorted(name for name in names if is_pickle(name))
    if pickles:
        return (
            f"holds its weights as pickles only ({pickles[0]}), and opening a pickle can run any code: look for a "
            "repository with safetensors or GGUF files"
        )
    return "holds no weights (no model.safetensors, no .gguf)"


def _listed(ggufs: list[str]) -> str:
    shown = ", ".join(ggufs[:12]) + (", ..." if len(ggufs) > 12 else "")
    return f" (there are: {shown})" if ggufs else ""
