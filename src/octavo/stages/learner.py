"""A stage's model while it is trained: all of its weights, or adapters beside frozen ones.

With adapters a stage leaves two things: `adapter/` in peft's layout, and `model/` with the adapters merged in. A stage
that goes on from such a stage with adapters of the same shape trains these further, on the same base, so that the last
adapter alone leads from the open weights to the result.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.engine.engine import Engine
from octavo.engine.folded import FoldedCompleter
from octavo.engine.rounded import RoundedCompleter
from octavo.model.lora import LoraConfig, add_lora, merge_lora
from octavo.model.transformer import Transformer
from octavo.rundir import StageDir
from octavo.stages.stage import Workshop
from octavo.tasks.types import Completer
from octavo.text.tokenizer import Tokenizer
from octavo.train.grpo import SamplerWeights
from octavo.weights.hf import load_model, load_tokenizer, save_model
from octavo.weights.lora import adapter_base, load_adapter, save_adapter


@dataclass(frozen=True)
class Learner:
    """A model to train, and how it is put away."""

    model: Transformer
    tokenizer: Tokenizer
    lora: LoraConfig | None
    base: str
    """Model folder that the adapters belong to."""

    def completer(self, workshop: Workshop, weights: SamplerWeights = "exact") -> Completer:
        """Draws from the weights as they are at each call."""
        if weights == "int8":
            return RoundedCompleter(self.model, self.tokenizer, workshop.engine)
        engine = Engine(self.model, self.tokenizer, workshop.engine)
        return engine if self.lora is None else FoldedCompleter(engine, self.model)

    def save(self, folder: StageDir) -> None:
        """Write the adapter, if there is one, and the whole model. Takes the adapters off."""
        if self.lora is not None:
            save_adapter(folder.adapter, self.model, self.lora, self.base)
            merge_lora(self.model)
        save_model(folder.model, self.model, self.tokenizer)


def open_learner(workshop: Workshop, lora: LoraConfig | None) -> Learner:
    """The model of the stage that `model` names, ready to train. Draws fresh adapters from the current random state."""
    source = workshop.sources["model"]
    tokenizer = load_tokenizer(source.model)
    if lora is not None and _lora_of(source) == lora.dump():
        # Both are stages of this run, wherever its folder may lie by now.
        base = source.path.parent / Path(adapter_base(source.adapter)).parent.name / "model"
        model = load_model(base)
        load_adapter(source.adapter, model)
        return Learner(model, tokenizer, lora, str(base))
    model = load_model(source.model)
    if lora is not None:
        add_lora(model, lora)
    return Learner(model, tokenizer, lora, str(source.model))


def _lora_of(stage: StageDir) -> dict[str, Any] | None:
    """The `lora` that a finished stage was trained with."""
    manifest = stage.read_manifest()
    return manifest.config["config"].get("lora") if manifest and stage.adapter.is_dir() else None
