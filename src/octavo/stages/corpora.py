"""What a stage learns from, as a recipe says it: files, or worked solutions of the recipe's tasks."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from octavo.config import Config
from octavo.data.files import find_files
from octavo.data.sources import FileSource, Source
from octavo.disclosure import sha256_of
from octavo.tasks.build import TaskConfig
from octavo.tasks.source import SolutionSource, SolutionSourceConfig, WritingConfig


class FilesCorpus(Config):
    """Text, Markdown, JSONL or Parquet, plain or compressed."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders and glob patterns, from the folder where the command is given."""
    separator: str | None = None
    """What stands between the documents of a text file; None: a file is one document."""


class SolutionsCorpus(WritingConfig):
    """Worked solutions of train problems, written when they are read."""

    kind: Literal["solutions"] = "solutions"
    tasks: tuple[str, ...] | None = None
    """Which of the recipe's tasks; None: all."""


Corpus = Annotated[FilesCorpus | SolutionsCorpus, Field(discriminator="kind")]


def open_corpus(corpus: FilesCorpus | SolutionsCorpus, tasks: Mapping[str, TaskConfig], seed: int) -> Source:
    """Open for reading. Raises DataError (files) or ConfigError (a task without worked solutions)."""
    match corpus:
        case FilesCorpus():
            return FileSource(corpus.paths, corpus.separator)
        case SolutionsCorpus():
            writing = {name: getattr(corpus, name) for name in WritingConfig.model_fields}
            chosen = tuple(tasks[name] for name in corpus.tasks or tasks)
            return SolutionSource(SolutionSourceConfig(tasks=chosen, seed=seed, **writing))


def corpus_files(corpus: FilesCorpus | SolutionsCorpus | None) -> dict[str, str]:
    """Path -> sha256 of the files that a corpus reads. Raises DataError where one is missing."""
    if not isinstance(corpus, FilesCorpus):
        return {}
    return {str(path): sha256_of(path) for path in find_files(corpus.paths)}
