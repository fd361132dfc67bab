"""The kinds of stages: each a config with the stages that it reads, and a page that wires the rooms together.

Where a kind has an owner (train/pretrain.py, rejection.py, ...), the config derives from the owner's. A stage finds its
inputs finished and perhaps training state of its own, interrupted self; `press.py` does everything around it.
"""

import json
from dataclasses import asdict
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from octavo.corpora import Corpus, FilesCorpus, SolutionsCorpus, open_corpus
from octavo.data.sources import FileSource, Source
from octavo.engine.engine import Engine
from octavo.errors import TrainingError
from octavo.evals.evaluate import Evaluation, evaluate, guess_baseline
from octavo.model.accounting import Accounting
from octavo.model.config import ModelConfig
from octavo.model.transformer import Transformer
from octavo.rejection import RejectionConfig, chunks, draw
from octavo.rundir import StageDir, SummaryRow, append_jsonl, read_jsonl, write_atomic
from octavo.storage import read_json, write_json
from octavo.tasks.build import build_mixture
from octavo.text.template import format_reply
from octavo.text.tokenizer import Tokenizer
from octavo.train.grpo import GRPOConfig, grpo
from octavo.train.pretrain import PretrainConfig, pretrain
from octavo.train.sft import SFTConfig, sft
from octavo.validation import ValidationConfig, validation
from octavo.watched import WatchedEngine
from octavo.weights.hf import load_model, load_tokenizer, save_model
from octavo.workshop import Cost, Stage, Workshop

MODEL_KINDS = ("pretrain", "sft", "grpo", "distill")


class TokenizerStage(Stage):
    """Learn a byte-level BPE vocabulary."""

    kind: Literal["tokenizer"]
    corpus: Corpus
    """What the vocabulary is learned from."""
    vocab_size: int = Field(gt=0)
    """Tokens, bytes and special tokens included; fewer if the corpus has no more pairs to merge."""
    uses: ClassVar = ("tasks",)

    def read_corpus(self) -> FilesCorpus | SolutionsCorpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        source = open_corpus(self.corpus, workshop.tasks, workshop.seed)

        def texts():
            for index in range(len(source)):
                document = source.document(index)
                yield document.text or "\n".join(
                    message.content if message.reasoning is None else format_reply(message.reasoning, message.content)
                    for message in document.messages
                )
                if index % 256 == 255:
                    workshop.meter.show(index + 1, len(source), 0, {})

        Tokenizer.train(texts(), self.vocab_size).save(workshop.folder.model)
        return Cost()


class PretrainStage(PretrainConfig, Stage):
    """Next-token prediction: a model from nothing, or one that is trained further."""

    kind: Literal["pretrain"]
    corpus: Corpus
    """What is read."""
    tokenizer: str | None = None
    """Stage whose vocabulary a new model gets."""
    model: ModelConfig | None = None
    """Architecture of a new model; its vocabulary is as large as the tokenizer's."""
    start: str | None = None
    """Stage whose model is trained further, instead of `tokenizer` and `model`."""
    accepts: ClassVar = {"tokenizer": ("tokenizer",), "start": MODEL_KINDS}
    uses: ClassVar = ("tasks",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        new = self.tokenizer is not None and self.model is not None
        if new == (self.start is not None) or (self.tokenizer is None) != (self.model is None):
            raise ValueError("expected either tokenizer and model (a new model) or start (one to train further)")
        return self

    def read_corpus(self) -> FilesCorpus | SolutionsCorpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        if self.model is None:
            model, tokenizer = _load(workshop, "start")
        else:
            tokenizer = load_tokenizer(workshop.sources["tokenizer"].model)
            model = Transformer(self.model.model_copy(update={"vocab_size": tokenizer.vocab_size}))
        source = open_corpus(self.corpus, workshop.tasks, workshop.seed)
        result = pretrain(
            model, tokenizer, source, self, workshop.world, workshop.folder, workshop.seed, workshop.meter
        )
        save_model(workshop.folder.model, model, tokenizer)
        return _training_cost(model.config, result.tokens, self.tokens_per_row)


class SFTStage(SFTConfig, Stage):
    """Supervised fine-tuning on conversations: a corpus, or what a `sample` stage kept."""

    kind: Literal["sft"]
    model: str
    """Stage whose model is fine-tuned."""
    data: str | None = None
    """Stage of kind `sample` whose samples are learned from ..."""
    corpus: Corpus | None = None
    """... or a corpus."""
    accepts: ClassVar = {"model": MODEL_KINDS, "data": ("sample",)}
    uses: ClassVar = ("tasks",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.data is None) == (self.corpus is None):
            raise ValueError("expected either data (a sample stage) or corpus")
        return self

    def read_corpus(self) -> FilesCorpus | SolutionsCorpus | None:
        return self.corpus

    def run(self, workshop: Workshop) -> Cost:
        if self.corpus is None:
            source = FileSource([workshop.sources["data"].samples])
        else:
            source = open_corpus(self.corpus, workshop.tasks, workshop.seed)
        return _fine_tune(self, workshop, source)


class DistillStage(SFTConfig, Stage):
    """Distillation as DeepSeek-R1 does it: a small model learns from what a larger one wrote, by plain SFT."""

    kind: Literal["distill"]
    model: str
    """Stage whose model is the student."""
    data: str
    """Stage of kind `sample` that holds the teacher's solutions."""
    accepts: ClassVar = {"model": MODEL_KINDS, "data": ("sample",)}

    def run(self, workshop: Workshop) -> Cost:
        return _fine_tune(self, workshop, FileSource([workshop.sources["data"].samples]))


class GRPOStage(GRPOConfig, Stage):
    """Reinforcement learning on the recipe's tasks."""

    kind: Literal["grpo"]
    model: str
    """Stage whose model is trained further."""
    validation: ValidationConfig | None = None
    """How weights are judged every `loop.evaluate_every_steps`; the best ones are kept."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.validation is None) != (self.loop.evaluate_every_steps is None):
            raise ValueError("validation and loop.evaluate_every_steps go together: give both or neither")
        return self

    def run(self, workshop: Workshop) -> Cost:
        model, tokenizer = _load(workshop, "model")
        mixture = build_mixture(list(workshop.tasks.values()))
        engine = Engine(model, tokenizer, workshop.engine)
        judge = self.validation and validation(self.validation, mixture, engine, tokenizer, workshop.seed)
        result = grpo(
            model,
            tokenizer,
            engine,
            mixture,
            self,
            workshop.world,
            workshop.folder,
            workshop.seed,
            workshop.meter,
            judge,
        )
        save_model(workshop.folder.model, model, tokenizer)
        context = self.rollouts.max_completion_tokens
        learned = _training_cost(model.config, result.tokens, context)
        drawn = _generation_cost(model.config, result.generated_tokens, context)
        return Cost(learned.tokens + drawn.tokens, learned.flops + drawn.flops)


class SampleStage(RejectionConfig, Stage):
    """Rejection sampling: solutions that a model found itself, the right and readable ones."""

    kind: Literal["sample"]
    model: str
    """Stage whose model is sampled."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks",)

    def run(self, workshop: Workshop) -> Cost:
        """Chunk after chunk into state/drawn.jsonl, where a killed run goes on; at the end into samples.jsonl."""
        model, tokenizer = _load(workshop, "model")
        mixture = build_mixture(list(workshop.tasks.values()))
        path = workshop.folder.state / "drawn.jsonl"
        drawn = read_jsonl(path)
        rest = draw(
            self, mixture, Engine(model, tokenizer, workshop.engine), tokenizer, workshop.seed, first=len(drawn)
        )
        for number, chunk in enumerate(rest, start=len(drawn) + 1):
            drawn.append(asdict(chunk))
            append_jsonl(path, [drawn[-1]])
            kept = sum(len(row["rows"]) for row in drawn)
            workshop.meter.show(
                number, chunks(self), chunk.tokens, {"accuracy": chunk.correct / chunk.completions, "kept": kept}
            )
        rows = [row for chunk in drawn for row in chunk["rows"]]
        if not rows:
            raise TrainingError(
                f"none of {sum(chunk['completions'] for chunk in drawn)} samples was right and readable, so there is "
                "nothing to learn from: train the sampled model longer, or draw more problems and samples"
            )
        write_atomic(workshop.folder.samples, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        tokens, completions = (sum(chunk[key] for chunk in drawn) for key in ("tokens", "completions"))
        return _generation_cost(model.config, tokens, tokens / completions)


class EvalStage(Stage):
    """Measure a model on held-out problems: a row of the closing table."""

    kind: Literal["eval"]
    model: str | None = None
    """Stage whose model is measured; None: what one scores by guessing each task's commonest answer."""
    row: str
    """Name of the row in the closing table."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks", "evaluation")

    def summary_row(self, folder: StageDir) -> SummaryRow | None:
        scores = Evaluation.parse(read_json(folder.evaluation), str(folder.evaluation)).overall
        return SummaryRow(
            stage=self.row,
            pass_at_1=scores.pass_at_1,
            low=scores.low,
            high=scores.high,
            maj_at_8=scores.maj_at_k if scores.samples == 8 else None,
            mean_completion_tokens=scores.mean_completion_tokens,
            finished_share=scores.finished_share,
        )

    def run(self, workshop: Workshop) -> Cost:
        mixture = build_mixture(list(workshop.tasks.values()))
        if self.model is None:
            write_json(workshop.folder.evaluation, guess_baseline(mixture, workshop.evaluation).dump())
            return Cost()
        model, tokenizer = _load(workshop, "model")
        engine = WatchedEngine(
            Engine(model, tokenizer, workshop.engine),
            lambda done, wanted, tokens: workshop.meter.show(done, wanted, tokens, {}),
        )
        result = evaluate(engine, tokenizer, mixture, workshop.evaluation)
        write_json(workshop.folder.evaluation, result.dump())
        completions = len(result.records) * workshop.evaluation.samples
        return _generation_cost(model.config, engine.tokens, engine.tokens / completions)


AnyStage = Annotated[
    TokenizerStage | PretrainStage | SFTStage | DistillStage | GRPOStage | SampleStage | EvalStage,
    Field(discriminator="kind"),
]


def training_flops(stage: Stage) -> float:
    """Of a stage whose length is fixed beforehand: a new model's pretraining; 0 for the others."""
    if not isinstance(stage, PretrainStage) or stage.model is None:
        return 0.0
    return _training_cost(stage.model, stage.loop.steps * stage.tokens_per_step, stage.tokens_per_row).flops


def _load(workshop: Workshop, field: str) -> tuple[Transformer, Tokenizer]:
    folder = workshop.sources[field].model
    return load_model(folder), load_tokenizer(folder)


def _fine_tune(config: SFTConfig, workshop: Workshop, source: Source) -> Cost:
    model, tokenizer = _load(workshop, "model")
    result = sft(model, tokenizer, source, config, workshop.world, workshop.folder, workshop.seed, workshop.meter)
    save_model(workshop.folder.model, model, tokenizer)
    return _training_cost(model.config, result.tokens, config.tokens_per_row)


def _training_cost(config: ModelConfig, tokens: int, tokens_per_document: float) -> Cost:
    """Of tokens trained on; on average each attends to half of its document (or row: an upper limit)."""
    return Cost(tokens, tokens * Accounting.of(config).training_flops_per_token(tokens_per_document / 2))


def _generation_cost(config: ModelConfig, tokens: int, tokens_per_sequence: float) -> Cost:
    """Of tokens read as prompts or drawn; on average each attends to half of its sequence."""
    return Cost(tokens, tokens * Accounting.of(config).forward_flops_per_token(tokens_per_sequence / 2))
