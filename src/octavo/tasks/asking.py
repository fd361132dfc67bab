"""How a problem becomes a conversation and a reply an answer: the one place, for training and evaluation alike.

Models pressed here are asked plainly and answer between tags. Open models have habits of their own: they may want to be
told how to answer, and be read as they write.
"""

import re
from typing import Literal

from octavo.config import Config
from octavo.tasks.types import Problem
from octavo.text.messages import Message
from octavo.text.template import ANSWER, END_ANSWER, END_THINK, encode_prompt, parse_reply
from octavo.text.tokenizer import Tokenizer

_BOXED = re.compile(r"\\boxed\s*\{")
_NUMBER = re.compile(r"[+-]?\d+(?:,\d{3})*(?:[.,/]\d+)*")

Reading = Literal["tags", "boxed", "last_number", "reply"]
"""Where the answer stands in a reply."""


class AskingConfig(Config):
    """Words around a question, and where the answer stands in a reply."""

    system: str | None = None
    """System message, where the problem brings none."""
    suffix: str = ""
    """Put behind every question, as "\\nGive the final answer between <answer> and </answer>."."""
    reading: Reading = "tags"
    """tags: between <answer> tags; boxed: the last \\boxed{...}; last_number: the last number of what follows the
    reasoning; reply: all that follows it."""

    def messages(self, problem: Problem) -> tuple[Message, ...]:
        """The conversation up to where the model answers."""
        asked = (*problem.context, Message("user", problem.question + self.suffix))
        if self.system is None or asked[0].role == "system":
            return asked
        return (Message("system", self.system), *asked)

    def prompt(self, tokenizer: Tokenizer, problem: Problem) -> tuple[int, ...]:
        """Ids of that conversation."""
        return tuple(encode_prompt(tokenizer, self.messages(problem)))

    def answer(self, text: str) -> str | None:
        """The answer that a completion's text gives; None if it gives none."""
        if self.reading == "tags":
            return parse_reply(text).answer
        said = text.rpartition(END_THINK)[2]
        if self.reading == "reply":
            return said.strip() or None
        if self.reading == "boxed":
            return _last_boxed(said)
        numbers = _NUMBER.findall(said)
        return numbers[-1] if numbers else None

    def written(self, answer: str) -> str:
        """A reply that says nothing but `answer`, so that `answer(...)` reads it."""
        match self.reading:
            case "tags":
                return f"{ANSWER}{answer}{END_ANSWER}"
            case "boxed":
                return f"\\boxed{{{answer}}}"
            case _:
                return answer


PLAINLY = AskingConfig()
"""As models pressed here are asked."""


def _last_boxed(text: str) -> str | None:
    """Content of the last \\boxed{...} that is closed, braces inside it counted."""
    for opening in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for at in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if not depth:
                return text[opening.end() : at]
    return None
