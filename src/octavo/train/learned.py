"""The part of a model that training changes: all of it, or with adapters only these. Checkpoints hold no more."""

from collections.abc import Mapping

from torch import Tensor, nn


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state without parameters that are frozen: whoever builds the model again gives it those."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_learned(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what `learned_state` returned. Raises ValueError if it is of a model with other parts to learn."""
    expected = learned_state(model).keys()
    if state.keys() != expected:
        odd = min(state.keys() ^ expected)
        raise ValueError(f"state of {len(state)} tensors for a model that learns {len(expected)}; {odd} is in one only")
    model.load_state_dict(state, strict=False)
