"""What a stage learns from, as a recipe says it: files, or worked solutions of the recipe's tasks."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from octavo.config import Config
from octavo.data.files import find_files
from octavo.data.parts import Part
from octavo.data.sources import FileSource, ListSource, Source
from octavo.disclosure import sha256_of
from octavo.errors import DataError
from octavo.tasks.asking import PLAINLY, AskingConfig
from octavo.tasks.build import TaskConfig
from octavo.tasks.questions import QuestionsTask, QuestionsTaskConfig
from octavo.tasks.source import SolutionSource, SolutionSourceConfig, WritingConfig


class FilesCorpus(Config):
    """Text, Markdown, JSONL or Parquet, plain or compressed."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders and glob patterns, from the folder where the command is given."""
    separator: str | None = None
    """What stands between the documents of a text file; None: a file is one document."""
    part: Part = "all"
    """train: without the tenth of the documents that is held out (by their content); held_out: that tenth alone."""


class SolutionsCorpus(WritingConfig):
    """Worked solutions of train problems, written when they are read."""

    kind: Literal["solutions"] = "solutions"
    tasks: tuple[str, ...] | None = None
    """Which of the recipe's tasks; None: all."""


class WorkedCorpus(Config):
    """Worked answers of the user's own questions, of those that are trained on."""

    kind: Literal["worked"] = "worked"
    tasks: tuple[str, ...] | None = None
    """Which of the recipe's tasks of kind questions; None: all of these."""
    bare_answers: bool = False
    """Learn gold answers too, where a question has no worked one."""


Corpus = Annotated[FilesCorpus | SolutionsCorpus | WorkedCorpus, Field(discriminator="kind")]


def open_corpus(corpus: Corpus, tasks: Mapping[str, TaskConfig], seed: int, asking: AskingConfig = PLAINLY) -> Source:
    """Open for reading; questions of tasks are put as `asking` says.

    Raises DataError (files) or ConfigError (a task without worked solutions).
    """
    match corpus:
        case FilesCorpus():
            return FileSource(corpus.paths, corpus.separator, corpus.part)
        case SolutionsCorpus():
            writing = {name: getattr(corpus, name) for name in WritingConfig.model_fields}
            chosen = tuple(tasks[name] for name in corpus.tasks or tasks)
            return SolutionSource(SolutionSourceConfig(tasks=chosen, seed=seed, asking=asking, **writing))
        case WorkedCorpus():
            chosen = [tasks[name] for name in corpus.tasks or tasks]
            own = [QuestionsTask(task) for task in chosen if isinstance(task, QuestionsTaskConfig)]
            documents = [document for task in own for document in task.worked(asking, corpus.bare_answers)]
            if not documents:
                raise DataError(
                    "corpus of kind worked: no task of kind questions has a worked answer to learn from; give worked "
                    "answers, or set bare_answers"
                )
            return ListSource(documents)


def corpus_files(corpus: Corpus | None) -> dict[str, str]:
    """Path -> sha256 of the files that a corpus reads. Raises DataError where one is missing."""
    if not isinstance(corpus, FilesCorpus):
        return {}
    return {str(path): sha256_of(path) for path in find_files(corpus.paths)}


def plain_texts(corpus: FilesCorpus) -> list[str]:
    """All texts of files. Raises DataError if there are conversations among them."""
    source = FileSource(corpus.paths, corpus.separator, corpus.part)
    documents = [source.document(index) for index in range(len(source))]
    if any(document.text is None for document in documents):
        raise DataError(f"{', '.join(corpus.paths)}: expected plain text, and there are conversations")
    return [document.text for document in documents if document.text is not None]
