"""Kind `sample`."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from octavo.engine.engine import Engine
from octavo.errors import TrainingError
from octavo.model.config import ModelConfig
from octavo.rundir import append_jsonl, read_jsonl, write_atomic
from octavo.stages.cost import Cost, generation_cost
from octavo.stages.rejection import RejectionConfig, chunks, draw
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.stages.teacher import ModelTeacher
from octavo.tasks.server import ServerConfig, ServerTeacher
from octavo.tasks.types import Teacher


class SampleStage(RejectionConfig, Stage):
    """Rejection sampling: solutions that a model found itself, the right and readable ones."""

    kind: Literal["sample"]
    model: str | None = None
    """Stage whose model is sampled, or ..."""
    teacher: ServerConfig | None = None
    """... a model behind an OpenAI-compatible server."""
    minutes: float | None = Field(default=None, gt=0)
    """Draw no more after so long, if all `problems` have not been drawn before. Such a run cannot be repeated bit for
    bit: how many are drawn is the machine's business."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks", "asking")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.model is None) == (self.teacher is None):
            raise ValueError("expected either model (a stage) or teacher (a server)")
        return self

    def decisive(self) -> dict[str, Any]:
        return self.dump() | ({} if self.teacher is None else {"teacher": self.teacher.decisive()})

    def run(self, workshop: Workshop) -> Cost:
        """Chunk after chunk into state/drawn.jsonl, where a killed run goes on; at the end into samples.jsonl.

        Replies of a server are kept one by one, in state/replies.jsonl.
        """
        teacher, model_config = self._teacher(workshop)
        mixture = workshop.mixture()
        path = workshop.folder.state / "drawn.jsonl"
        drawn = read_jsonl(path)
        rest = draw(self, mixture, teacher, workshop.seed, len(drawn), workshop.asking)
        if self._is_over(drawn):
            rest = iter(())
        tokens, started = 0, time.monotonic()
        for number, chunk in enumerate(rest, start=len(drawn) + 1):
            drawn.append(asdict(chunk) | {"seconds": time.monotonic() - started})
            started = time.monotonic()
            tokens += chunk.tokens
            append_jsonl(path, [drawn[-1]])
            kept = sum(len(row["rows"]) for row in drawn)
            workshop.meter.show(
                number, chunks(self), tokens, {"accuracy": chunk.correct / chunk.completions, "kept": kept}
            )
            if self._is_over(drawn):
                break
        rows = [row for chunk in drawn for row in chunk["rows"]]
        if not rows:
            raise TrainingError(
                f"none of {sum(chunk['completions'] for chunk in drawn)} samples was right and readable, so there is "
                "nothing to learn from: sample a better model, or draw more problems and samples"
            )
        write_atomic(workshop.folder.samples, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        tokens, completions = (sum(chunk[key] for chunk in drawn) for key in ("tokens", "completions"))
        if model_config is None:
            return Cost(tokens)  # how large a server's model is, only the server knows
        return generation_cost(model_config, tokens, tokens / completions)

    def _teacher(self, workshop: Workshop) -> tuple[Teacher, ModelConfig | None]:
        """Who is asked, and the shape of the model if it is known."""
        if self.teacher is not None:
            return ServerTeacher(self.teacher, workshop.folder.state / "replies.jsonl"), None
        model, tokenizer = load(workshop, "model")
        return ModelTeacher(Engine(model, tokenizer, workshop.engine), tokenizer), model.config

    def _is_over(self, drawn: Sequence[Mapping[str, Any]]) -> bool:
        return self.minutes is not None and sum(row["seconds"] for row in drawn) >= 60 * self.minutes
