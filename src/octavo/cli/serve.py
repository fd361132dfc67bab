"""The verb that offers models to other programs."""

from pathlib import Path
from typing import Annotated

import typer

from octavo.cli.options import MODEL, Debug, Quantize, Threads

KEY_VARIABLE = "OCTAVO_API_KEY"


def serve(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help=f"{MODEL}. NAME=MODEL serves it under another name.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than this machine's own need a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help=f"File that holds the key clients must show. Or set {KEY_VARIABLE}.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let other machines in without a key.")] = False,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A web page that may use the server, as https://example.org; repeatable.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name by which the server may be called; repeatable.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="For all models together, as 8GB. Default: 60% of the machine's.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Sequences that each model writes at once.")] = 64,
    queue: Annotated[int, typer.Option(min=0, help="Sequences that may wait; beyond, requests are refused.")] = 256,
    context: Annotated[
        int | None, typer.Option(min=2, help="Longest prompt and reply, tokens. Default: what the model reads.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply where a request names none.")] = 2048,
    deadline: Annotated[float, typer.Option(min=1.0, help="Seconds after which a request is given up.")] = 600.0,
    runs: Annotated[Path, typer.Option(help="Folder with runs, for the page at /runs.")] = Path("runs"),
    quantize: Quantize = None,
    save_rows: Annotated[
        Path | None, typer.Option(help="JSONL file for answers kept on the chat page, as octavo adapt reads them.")
    ] = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Serve models to programs that speak OpenAI's API. Loaded when first asked for."""
    from octavo.serve.config import ServeConfig, ServiceConfig
    from octavo.serve.run import api_key, run, size_in_bytes
    from octavo.serving import served_models
    from octavo.world import set_threads

    if threads is not None:
        set_threads(threads)
    service = ServiceConfig(
        quantize=quantize,
        max_rows=rows,
        max_tokens=context,
        default_max_tokens=max_tokens,
        queue_rows=queue,
        deadline_seconds=deadline,
        memory_bytes=None if memory is None else size_in_bytes(memory, "--memory"),
    )
    config = ServeConfig(
        host=host,
        port=port,
        api_key=api_key(api_key_file, KEY_VARIABLE),
        insecure=insecure,
        origins=tuple(allow_origin or ()),
        hosts=tuple(allow_host or ()),
        runs=str(runs),
        save_rows=None if save_rows is None else str(save_rows),
    )
    run(served_models(models or []), service, config)
