"""Kind `open`."""

from typing import ClassVar, Literal

from octavo.disclosure import sha256_of
from octavo.models import find_model
from octavo.stages.cost import Cost
from octavo.stages.stage import Stage, Workshop
from octavo.weights.hf import save_model
from octavo.weights.open import open_model


class OpenStage(Stage):
    """Open weights, to start from: they are copied into the run as a model folder, in float32."""

    kind: Literal["open"]
    weights: str
    """A name that `octavo pull` knows, a model folder, a GGUF file, or a run folder."""
    accepts: ClassVar = {}

    def files(self) -> dict[str, str]:
        path = find_model(self.weights)
        return {str(path): sha256_of(path)}

    def run(self, workshop: Workshop) -> Cost:
        model, tokenizer = open_model(find_model(self.weights))
        save_model(workshop.folder.model, model, tokenizer)
        return Cost()
