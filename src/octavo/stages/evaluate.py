"""Kind `eval`."""

from typing import ClassVar, Literal

from octavo.engine.engine import Engine
from octavo.evals.evaluate import Evaluation, evaluate, guess_baseline
from octavo.rundir import StageDir, SummaryRow
from octavo.stages.cost import Cost, generation_cost
from octavo.stages.stage import MODEL_KINDS, Stage, Workshop, load
from octavo.stages.watched import WatchedEngine
from octavo.storage import read_json, write_json


class EvalStage(Stage):
    """Measure a model on held-out problems: a row of the closing table."""

    kind: Literal["eval"]
    model: str | None = None
    """Stage whose model is measured; None: what one scores by guessing each task's commonest answer."""
    row: str
    """Name of the row in the closing table."""
    accepts: ClassVar = {"model": MODEL_KINDS}
    uses: ClassVar = ("tasks", "evaluation", "asking")

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
        mixture = workshop.mixture()
        if self.model is None:
            write_json(workshop.folder.evaluation, guess_baseline(mixture, workshop.evaluation).dump())
            return Cost()
        model, tokenizer = load(workshop, "model")
        engine = WatchedEngine(
            Engine(model, tokenizer, workshop.engine),
            lambda done, wanted, tokens: workshop.meter.show(done, wanted, tokens, {}),
        )
        result = evaluate(engine, tokenizer, mixture, workshop.evaluation, workshop.asking)
        write_json(workshop.folder.evaluation, result.dump())
        completions = len(result.records) * workshop.evaluation.samples
        return generation_cost(model.config, engine.tokens, engine.tokens / completions)
