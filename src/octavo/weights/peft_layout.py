"""Which module of ours is which of peft's, and how the factors of stacked experts lie there.

Shapes: `E` experts, `D` width of what goes in, `F` width of what comes out, `r` rank.
"""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from octavo.errors import CheckpointError
from octavo.model.experts import RoutedExperts
from octavo.model.lora import adapters
from octavo.model.lora_layers import LoraExperts
from octavo.model.router import Router
from octavo.model.transformer import Transformer
from octavo.weights.names import hugging_face_module
from octavo.weights.source import shown

_GATE_UP = ".base_layer"
"""peft wraps the stacked parameters of one module into each other: gate_up_proj first, down_proj around it."""


def factors_of(model: Transformer) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(module, lora_A, lora_B) of each adapter, as peft names and saves them."""
    for path, adapter in adapters(model).items():
        module = hugging_face_module(path)
        if isinstance(adapter, LoraExperts):
            (_, *gate_up), (_, *down) = adapter.deltas()
            yield module + _GATE_UP, *stack(*gate_up)
            yield module, *stack(*down)
        else:
            yield module, adapter.lora_A.detach(), adapter.lora_B.detach()


def stack(a_EDr: Tensor, b_ErF: Tensor) -> tuple[Tensor, Tensor]:
    """Ours, for x A B, to peft's lora_A [E r, D] (expert by expert) and lora_B [F, r E] (rank by rank)."""
    return a_EDr.detach().transpose(1, 2).flatten(0, 1), b_ErF.detach().permute(2, 1, 0).flatten(1, 2)


def unstack(a: Tensor, b: Tensor, like_a_EDr: Tensor, like_b_ErF: Tensor, swapped: bool) -> tuple[Tensor, Tensor]:
    """peft's to ours. Earlier peft took the stacked [E, out, in] for [E, in, out]: there A and B are `swapped`.

    Raises CheckpointError for other shapes.
    """
    (experts, inputs, rank), outputs = like_a_EDr.shape, like_b_ErF.shape[2]
    into, out_of = (outputs, inputs) if swapped else (inputs, outputs)
    expected = (experts * rank, into), (out_of, rank * experts)
    if (tuple(a.shape), tuple(b.shape)) != expected:
        raise CheckpointError(
            f"lora_A and lora_B have shapes {tuple(a.shape)} and {tuple(b.shape)}, expected {expected[0]} and "
            f"{expected[1]}"
        )
    a_ErX, b_XrE = a.view(experts, rank, into), b.view(out_of, rank, experts)
    if swapped:
        return b_XrE.permute(2, 0, 1), a_ErX
    return a_ErX.transpose(1, 2), b_XrE.permute(2, 1, 0)


def paths_of(model: Transformer, modules: Iterable[str]) -> dict[str, str]:
    """Our path of each module of peft's. Raises CheckpointError for one that cannot be adapted here."""
    known: dict[str, str] = {}
    for path, module in _adaptable(model):
        name = hugging_face_module(path)
        known[name] = path
        if isinstance(module, RoutedExperts):
            known[name + _GATE_UP] = path
    unknown = sorted(set(modules) - known.keys())
    if unknown:
        raise CheckpointError(
            f"{shown(unknown[0])} has an adapter, but the model has no such module, or none that can be adapted here "
            "(projections of attention and feed-forward, stacked experts, routers)"
        )
    return {module: known[module] for module in modules}


def is_gate_up(module: str, modules: Iterable[str], target_parameters: Iterable[str]) -> bool:
    """Whether an adapter of stacked experts is that of gate_up_proj. Of a lone one the name does not say."""
    if module.endswith(_GATE_UP):
        return True
    return module + _GATE_UP not in modules and any(name.endswith("gate_up_proj") for name in target_parameters)


def targets_of(model: Transformer) -> tuple[list[str], list[str]]:
    """target_modules and target_parameters of adapter_config.json: endings of names where these mean just what has
    adapters, whole names elsewhere.

    With experts, peft takes gate_proj, up_proj and down_proj among modules for the experts' and not for those of dense
    layers and shared experts; named as parameters (gate_proj.weight) they are these.
    """
    wrapped = adapters(model)
    modules: set[str] = set()
    parameters: set[str] = set()
    others: set[str] = set()
    for path, module in _adaptable(model):
        name = hugging_face_module(path)
        is_parameter = model.config.moe is not None and ".ffn." in path
        if isinstance(module, RoutedExperts):
            names = {f"{name}.gate_up_proj", f"{name}.down_proj"}
        else:
            names = {f"{name}.weight" if is_parameter else name}
        (others if path not in wrapped else parameters if is_parameter else modules).update(names)
    return _shortened(modules, others, 1), _shortened(parameters, others, 2)


def _shortened(names: set[str], others: set[str], parts: int) -> list[str]:
    def endings(names: set[str]) -> set[str]:
        return {".".join(name.split(".")[-parts:]) for name in names}

    return sorted(names if endings(names) & endings(others) else endings(names))


def _adaptable(model: Transformer) -> Iterator[tuple[str, nn.Module]]:
    """Modules of the layers that may have adapters, wrapped or not, by the paths that they have without."""
    for path, module in model.layers.named_modules(prefix="layers"):
        if isinstance(module, nn.Linear | RoutedExperts | Router):
            yield path.removesuffix(".base"), module
