"""Verbs that train."""

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli.options import Debug, Json, Threads, same_command

if TYPE_CHECKING:
    from octavo.console import Display


def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (r1-mini, smoke) or a YAML file.")],
    out: Annotated[
        Path | None, typer.Option(help="Run folder. Default: runs/NAME; of a sweep runs/NAME-sweep.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As base.steps=100 or seed=1; repeatable.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Run every stage again, or go on where the run was (default).")
    ] = False,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE,VALUE,...", help="Run once with each value of a key, and compare the results."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Of a sweep: runs of each value, with the recipe's seed and those behind it."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it in a browser, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and why; change nothing.")] = False,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a recipe's stages in order. The same command again goes on where it was."""
    from octavo.press import Press
    from octavo.recipe import load_recipe

    if sweep is None and seeds is not None:
        raise typer.BadParameter("--seeds needs --sweep, which says what to compare")
    if sweep is not None and fresh:
        raise typer.BadParameter("--fresh is for a single run; to make a sweep anew, give it another folder with --out")
    if threads is not None:
        overrides = [*(overrides or ()), f"threads={threads}"]
    loaded = load_recipe(recipe, overrides or ())
    if sweep is not None:
        _compare(loaded.name, recipe, overrides or (), sweep, seeds or 1, out, dry_run, as_json, watch)
        return
    with _shown(as_json) as display:
        press = Press(loaded, out or Path("runs") / loaded.name, display, fresh=fresh)
        if dry_run:
            press.show_plan()
            return
        with _watched(watch, out or Path("runs"), display):
            press.run()


def _compare(
    name: str,
    recipe: str,
    overrides: Sequence[str],
    sweep: str,
    seeds: int,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    watch: bool,
) -> None:
    from octavo.sweep import SweepPlan, run_sweep
    from octavo.sweep_result import print_sweep

    folder = out or Path("runs") / f"{name}-sweep"
    with _shown(as_json) as display, _watched(watch and not dry_run, folder, display):
        result = run_sweep(recipe, overrides, SweepPlan.parse(sweep, seeds), folder, display, dry_run)
    if result is None:
        return
    if as_json:
        print(json.dumps({"event": "sweep_finished", **result.dump()}))
    else:
        print_sweep(result)
        print(f"The same table: {folder / 'sweep.md'}; as data: {folder / 'sweep.json'}")


@contextmanager
def _watched(wanted: bool, root: Path, display: "Display") -> Iterator[None]:
    """The window on training over the runs under `root`, where it is wanted."""
    if not wanted:
        yield
        return
    from octavo.watch import watching

    with watching(root) as address:
        display.note(f"To watch it: {address}")
        yield


@contextmanager
def _shown(as_json: bool) -> "Iterator[Display]":
    """A display, put away at the end; who is interrupted is told how to go on."""
    from octavo.console import open_display

    display = open_display(as_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to stop from the page: as Ctrl-C
    try:
        yield display
    except KeyboardInterrupt:
        display.close()
        print(f"Interrupted. To go on where it was: {same_command()}", file=sys.stderr)
        raise
    finally:
        display.close()
