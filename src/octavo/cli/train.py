"""Verbs that train."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from octavo.cli.options import Debug, Json, Threads, same_command


def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe (r1-mini, smoke) or a YAML file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/NAME.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As base.steps=100 or seed=1; repeatable.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Run every stage again, or go on where the run was (default).")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and why; change nothing.")] = False,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a recipe's stages in order. The same command again goes on where it was."""
    from octavo.console import open_display
    from octavo.press import Press
    from octavo.recipe import load_recipe

    if threads is not None:
        overrides = [*(overrides or ()), f"threads={threads}"]
    loaded = load_recipe(recipe, overrides or ())
    folder = out or Path("runs") / loaded.name
    display = open_display(as_json)
    try:
        press = Press(loaded, folder, display, fresh=fresh)
        if dry_run:
            press.show_plan()
        else:
            press.run()
    except KeyboardInterrupt:
        display.close()
        print(f"Interrupted. To go on where it was: {same_command()}", file=sys.stderr)
        raise
    finally:
        display.close()
