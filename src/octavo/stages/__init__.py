"""The kinds of stages, one a file: each a config with the stages that it reads, and the wiring of the rooms.

Where a kind has an owner (train/pretrain.py, stages/rejection.py, ...), its config derives from the owner's. A stage
finds its inputs finished and perhaps training state of its own, interrupted self; `press.py` does everything around it.
"""

from typing import Annotated

from pydantic import Field

from octavo.stages.distill import DistillStage
from octavo.stages.evaluate import EvalStage
from octavo.stages.extend_tokenizer import ExtendTokenizerStage
from octavo.stages.grpo import GRPOStage
from octavo.stages.on_policy_distill import OnPolicyDistillStage
from octavo.stages.open import OpenStage
from octavo.stages.pretrain import PretrainStage
from octavo.stages.sample import SampleStage
from octavo.stages.self_test import SelfTestStage
from octavo.stages.sft import SFTStage
from octavo.stages.text_score import TextScoreStage
from octavo.stages.tokenizer import TokenizerStage

AnyStage = Annotated[
    TokenizerStage
    | OpenStage
    | ExtendTokenizerStage
    | PretrainStage
    | SFTStage
    | DistillStage
    | OnPolicyDistillStage
    | GRPOStage
    | SampleStage
    | EvalStage
    | TextScoreStage
    | SelfTestStage,
    Field(discriminator="kind"),
]
"""Any stage; `kind` says which."""
