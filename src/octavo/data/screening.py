"""What is wrong with the questions as a whole, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.data.examples import Example
from octavo.errors import DataError
from octavo.text.template import encode_prompt
from octavo.text.tokenizer import Tokenizer


def check_answers_differ(examples: Sequence[Example]) -> None:
    """Raises DataError if all gold answers are one: then the model learns to say it, whatever it is asked."""
    answers = {" ".join(example.answer.casefold().split()) for example in examples if example.answer is not None}
    if len(examples) > 1 and len(answers) == 1 and all(example.answer is not None for example in examples):
        raise DataError(
            f"all {len(examples)} answers are {answers.pop()!r}: a model would learn to say that without reading the "
            "question; expected questions with different answers"
        )


def drop_too_long(
    examples: Sequence[Example], tokenizer: Tokenizer, context_tokens: int
) -> tuple[list[Example], list[str]]:
    """The examples whose question, with at least one token to answer it, fits into the context; and warnings.

    Raises DataError if none does.
    """
    lengths = [len(encode_prompt(tokenizer, example.messages)) for example in examples]
    kept = [example for example, length in zip(examples, lengths, strict=True) if length < context_tokens]
    dropped = len(examples) - len(kept)
    if not dropped:
        return kept, []
    longest = max(range(len(examples)), key=lengths.__getitem__)
    what = (
        f"longer than the context of {context_tokens} tokens "
        f"(the longest, {examples[longest].where}, has {lengths[longest]})"
    )
    if not kept:
        raise DataError(f"all {dropped} questions are {what}: shorten them, or choose a model with a longer context")
    return kept, [f"{dropped} of {len(examples)} questions are {what}, and are left out"]
