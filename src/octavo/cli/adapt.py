"""`octavo adapt`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from octavo.cli.options import MODEL, Debug, Json, Threads, same_command
from octavo.pull import DEFAULT

_DATA = "Files or folders of questions (JSONL, CSV, Parquet, ...), or reasoning-gym tasks as chain_sum:max_terms=2"
_VERIFIER = (
    "What judges answers: exact, numeric, choice, regex, math, json_schema, gym, code, schema.json, file.py:function, "
    "'{kind: numeric, tolerance: 0.01}', or a sum as '0.8*numeric + 0.2*file.py:tidy'. Default: by the answers."
)


def adapt(
    model: Annotated[str, typer.Argument(help=f"{MODEL}. With --check it may be left out.")],
    data: Annotated[list[str] | None, typer.Argument(metavar="DATA...", help=f"{_DATA}.")] = None,
    method: Annotated[
        Literal["auto", "sft", "grpo", "distill", "on-policy"],
        typer.Option(help="auto: sft where there are worked answers, then grpo where answers can be checked."),
    ] = "auto",
    minutes: Annotated[float, typer.Option(min=0.01, help="Time for everything; --check says how it is divided.")] = 30,
    verifier: Annotated[str | None, typer.Option(metavar="VERIFIER", help=_VERIFIER)] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Train small adapters; the weights themselves rest.")] = False,
    rank: Annotated[int, typer.Option(min=1, help="Of --lora.")] = 32,
    alpha: Annotated[float | None, typer.Option(help="Of --lora. Default: twice the rank.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL|URL", help="Learn from this model or OpenAI-compatible server."),
    ] = None,
    teacher_model: Annotated[str | None, typer.Option(help="What the server calls its model.")] = None,
    teacher_key: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the server's key.")
    ] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option("--held-out", help="Measure by this file. Default: a fifth of DATA.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="ROLE=NAME", help="As question=frage; repeatable.")
    ] = None,
    language: Annotated[str, typer.Option(help="In which reasoning is wanted, as en, pt, sw.")] = "en",
    reading: Annotated[
        Literal["tags", "boxed", "last_number", "reply"] | None,
        typer.Option(help="Where the answer stands in a reply. Default: by the worked answers."),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Put behind every question.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest reply. Default: by the answers.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only look at the data, and try the verifier out.")] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/adapt-DATA.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Of the recipe, as grpo.loop.steps=20; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Begin anew, or go on (default).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the recipe; change nothing.")] = False,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Teach a model your own questions, and measure how much better it got. The same command again goes on."""
    from octavo.adapt import command
    from octavo.adapt.wishes import Wishes, parse_columns, parse_verifier
    from octavo.console import open_display
    from octavo.world import set_threads

    if not data:
        if not check:
            raise typer.BadParameter("expected MODEL and DATA")
        model, data = DEFAULT, [model]
    if threads is not None:
        set_threads(threads)
    wishes = Wishes(
        model=model,
        data=tuple(data),
        method=method,
        minutes=minutes,
        verifier=None if verifier is None else parse_verifier(verifier),
        lora={"rank": rank, "alpha": alpha or 2.0 * rank} if lora else None,
        teacher=teacher,
        teacher_model=teacher_model,
        teacher_key=teacher_key,
        held_out=tuple(map(str, held_out or ())),
        columns=parse_columns(column or []),
        language=language,
        reading=reading,
        system=system,
        suffix=suffix,
        max_tokens=max_tokens,
        seed=seed,
        threads=threads,
        overrides=tuple(overrides or ()),
    )
    adaptation = command.prepare(wishes, out)
    if check:
        command.look(adaptation)
        return
    if dry_run:
        print(command.recipe_text(adaptation), end="")
        return
    display = open_display(as_json)
    try:
        command.adapt(adaptation, display, fresh)
    except KeyboardInterrupt:
        display.close()
        print(f"Interrupted. To go on where it was: {same_command()}", file=sys.stderr)
        raise
    finally:
        display.close()
