"""Options and arguments that several verbs share, and the command as it was typed."""

import shlex
import sys
from typing import Annotated, Literal

import typer

MODEL = "A run folder, a stage in it, a Hugging Face model folder, a .gguf file, or a name that octavo pull knows"
"""What a MODEL may be, for help."""

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch.")]
Quantize = Annotated[
    Literal["int8"] | None,
    typer.Option(help="int8: weights in 8 bits, a quarter of the memory and faster. Default: float32, exact."),
]
Model = Annotated[str, typer.Argument(help=f"{MODEL}.")]


def same_command() -> str:
    """The command that is running, to be typed again."""
    return shlex.join(["octavo", *sys.argv[1:]])
