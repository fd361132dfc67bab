"""`octavo export`: a model in another form, which is read back and compared with the original before it is called done.

Floating-point forms must answer as the original does with its weights rounded to that form, which leaves no room for a
transposed matrix or a lost tensor. Block-quantized forms differ by nature: there the perplexity of a text is compared.

Shapes: `T` tokens, `V` vocabulary.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from octavo.errors import ConfigError, ExportError
from octavo.model.transformer import Transformer
from octavo.models import find_model
from octavo.text.tokenizer import Tokenizer
from octavo.weights.gguf import KINDS, write_gguf
from octavo.weights.hf import DTYPES, save_model
from octavo.weights.open import open_model

Format = Literal["gguf", "hf"]

MOST_DIFFERENCE = 1e-3
"""Greatest difference of a logit that a floating-point form may show."""
MOST_PERPLEXITY_RATIO = 2.0
"""Perplexity of a quantized form over the original's, beyond which it is not rounding that went wrong."""

_MOST_TOKENS = 256
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16} | DTYPES
_TEXT = """\
A press lays down one sheet at a time. The printer sets the type by hand, letter by letter, inks it, and pulls the bar;
then the sheet is hung up to dry, and the next one follows. In 1501 a workshop in Venice began to sell small books that
fitted into a pocket. They cost a fraction of what a folio had cost, and so people who had never owned a book could own
a shelf of them. What is 17 + 25? First 17 + 20 = 37, then 37 + 5 = 42, so the answer is 42.

def mean(values):
    return sum(values) / len(values)

Die Lettern werden wieder abgelegt; la forme est lavée, puis on recommence. Ein Bogen, achtmal gefaltet, ergibt sechzehn
Seiten. 印刷は紙の上に言葉を残す。 Книга переживает того, кто её напечатал. If x is greater than 3 and less than 5, and
x is a whole number, then x must be 4.
"""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it compares with the original on a fixed text."""

    path: Path
    kind: str
    """How most weights are stored: F32, Q8_0, bfloat16, ..."""
    bytes: int
    tokens: int
    """Length of the text."""
    greatest_difference: float
    """Of any logit, from the original's."""
    perplexity: float
    perplexity_ratio: float
    """Perplexity of the text over the original's."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path)}


def export(name: str | Path, to: Format, out: Path, kind: str, force: bool = False) -> Exported:
    """Write MODEL to `out` (a .gguf file, or a folder), read it back, compare.

    `kind` is one of `KINDS` for gguf, of `DTYPES` for hf. Peak memory is one model and one tensor. Raises ConfigError
    where `out` may not be written; CheckpointError, StorageError; ExportError where the comparison fails, what was
    written then being kept.
    """
    path = find_model(name)
    _check(to, out, kind, force, path)
    model, tokenizer = open_model(path)
    ids = tokenizer.encode(_TEXT)[: min(_MOST_TOKENS, model.config.max_positions)]
    original_TV = text_logits(model, ids)
    if to == "gguf":
        write_gguf(out, model, tokenizer, kind)
    else:
        save_model(out, model, tokenizer, DTYPES[kind])
    expected_TV = original_TV
    if _FLOATS.get(kind, torch.float32) != torch.float32:
        round_weights(model, _FLOATS[kind], vectors=to == "hf")
        expected_TV = text_logits(model, ids)
    del model  # before the other one comes

    return _compare(out, kind, ids, original_TV, expected_TV)


def _compare(out: Path, kind: str, ids: list[int], original_TV: Tensor, expected_TV: Tensor) -> Exported:
    """Read back, measure, and judge. Raises ExportError."""
    model, tokenizer = open_model(out)
    _check_tokenizer(tokenizer, ids, out)
    written_TV = text_logits(model, ids)
    exported = Exported(
        path=out,
        kind=kind,
        bytes=_bytes(out),
        tokens=len(ids),
        greatest_difference=_difference(written_TV, original_TV),
        perplexity=perplexity(written_TV, ids),
        perplexity_ratio=perplexity(written_TV, ids) / perplexity(original_TV, ids),
    )
    if kind in _FLOATS:
        difference = _difference(written_TV, expected_TV)
        if not difference <= MOST_DIFFERENCE:
            raise ExportError(
                f"{out}: read back, its logits differ by {difference:.2g} from those of the original in {kind}, at "
                f"most {MOST_DIFFERENCE} was expected; the files are kept, do not use them"
            )
    elif not exported.perplexity_ratio <= MOST_PERPLEXITY_RATIO:
        raise ExportError(
            f"{out}: read back, its perplexity is {exported.perplexity_ratio:.3g} times the original's, at most "
            f"{MOST_PERPLEXITY_RATIO} was expected of {kind}; the files are kept: choose a finer kind"
        )
    return exported


@torch.no_grad()
def text_logits(model: Transformer, ids: list[int]) -> Tensor:
    """Logits of one document, [T, V]."""
    inputs_BT = torch.tensor([ids])
    positions_BT = torch.arange(len(ids))[None]
    return model.logits(model.eval()(inputs_BT, positions_BT)[0])


def perplexity(logits_TV: Tensor, ids: list[int]) -> float:
    """exp of the mean negative log-probability of each token behind the first."""
    logprobs_TV = logits_TV[:-1].log_softmax(-1)
    targets_T = torch.tensor(ids[1:])
    return math.exp(-logprobs_TV.gather(1, targets_T[:, None]).mean().item())


@torch.no_grad()
def round_weights(model: Transformer, dtype: torch.dtype, vectors: bool) -> None:
    """Round in place what a form of `dtype` rounds: matrices but the router; with `vectors`, all parameters."""
    for name, parameter in model.named_parameters():
        if vectors or (parameter.ndim > 1 and not name.endswith("router.weight")):
            parameter.copy_(parameter.to(dtype))


def _difference(left_TV: Tensor, right_TV: Tensor) -> float:
    return (left_TV - right_TV).abs().max().item()


def _check(to: Format, out: Path, kind: str, force: bool, source: Path) -> None:
    """Refuse, before the model is read, what cannot be written or must not be overwritten."""
    kinds = KINDS if to == "gguf" else tuple(DTYPES)
    if kind not in kinds:
        raise ConfigError(f"{kind!r} is no kind of {to} weights (known: {', '.join(kinds)})")
    if to == "gguf" and out.suffix != ".gguf":
        raise ConfigError(f"--out {out}: the name of a GGUF file ends in .gguf")
    if not out.exists():
        return
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise ConfigError(f"--out {out} is, or holds, the model that is to be exported: choose another place")
    if not force:
        raise ConfigError(f"--out {out} exists; --force overwrites it")
    if to == "gguf" and out.is_dir():
        raise ConfigError(f"--out {out} is a folder: name a .gguf file in it")
    if to == "hf" and not (out / "config.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is no model folder, and only such a one is overwritten: choose another place")


def _check_tokenizer(tokenizer: Tokenizer, ids: list[int], out: Path) -> None:
    found = tokenizer.encode(_TEXT)[: len(ids)]
    if found != ids:
        place = next((at for at, (one, other) in enumerate(zip(found, ids, strict=False)) if one != other), len(found))
        raise ExportError(
            f"{out}: read back, its tokenizer cuts a text differently (from token {place}); do not use it"
        )


def _bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in (out.iterdir() if out.is_dir() else (out,)))
