"""A question of a user's, with what is known of its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.tasks.types import Problem
from octavo.text.messages import Document, Message
from octavo.text.template import ANSWER, END_ANSWER


@dataclass(frozen=True)
class Example:
    """`messages` go up to where the assistant answers; the last one is the user's.

    `reply` is a worked answer, which a model can imitate; `answer` the gold one, which a verifier compares with;
    `metadata` whatever else stood in the row, for the verifier. At least one of the three is there.
    """

    messages: tuple[Message, ...]
    answer: str | None = None
    reply: Message | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    """"file:line", of Parquet "file: row N"."""

    def document(self, asked: Sequence[Message] | None = None) -> Document | None:
        """What fine-tuning learns: the worked answer, else the bare gold answer between its tags. None without both.

        `asked` is the prompt where a trainer words it in its own way.
        """
        reply = self.reply
        if reply is None and self.answer is not None:
            reply = Message("assistant", f"{ANSWER}{self.answer}{END_ANSWER}")
        return None if reply is None else Document(messages=(*(asked or self.messages), reply))

    def problem(self, task: str, language: str = "en") -> Problem:
        """What reinforcement asks. `answer` is empty where none is known: the verifier has the metadata."""
        *context, question = self.messages
        return Problem(
            id=self.where,
            task=task,
            question=question.content,
            answer=self.answer or "",
            language=language,
            metadata=self.metadata,
            context=tuple(context),
        )
