"""The command: every verb in the order in which --help shows it, and errors as one line and an exit code.

Exit codes: 0 done; 1 a bug of ours; 2 something the user can mend (one line on stderr); 3 training or storage failed;
130 interrupted.
"""

import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from octavo import __version__
from octavo.cli import adapt, ask, machine, serve, train, weights
from octavo.errors import OctavoError

app = typer.Typer(
    name="octavo",
    help="An open press for sparse reasoning models on an ordinary computer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

VERBS = {
    "run": train.run,
    "adapt": adapt.adapt,
    "chat": ask.chat,
    "serve": serve.serve,
    "eval": ask.evaluate,
    "pull": weights.pull,
    "export": weights.export,
    "doctor": machine.doctor,
}
"""Name of every verb, and the function that does it."""

for _name, _verb in VERBS.items():
    app.command(_name)(_verb)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"octavo {__version__}")
        raise typer.Exit


@app.callback()
def octavo(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An open press for sparse reasoning models on an ordinary computer."""


def main() -> None:
    """Entry point: errors become one line and an exit code."""
    sys.exit(exit_code_of(sys.argv[1:]))


def exit_code_of(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    debug = "--debug" in arguments
    try:
        # Not standalone: the command returns (or typer.Exit becomes a number) instead of ending the process.
        code = app(args=arguments, prog_name="octavo", standalone_mode=False)
    except OctavoError as error:
        return _failed(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader of our output has left (as `octavo ... | head`); there is nobody left to tell.
        sys.stderr.close()
        return 0
    except OSError as error:
        return _failed(f"{error.filename or 'input or output'}: {error.strerror or error}", 3, debug)
    except TyperException as error:
        return _failed(f"{error.format_message()} (see octavo --help)", 2, debug)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return _failed(f"{what} (a bug of Octavo: please report it, with what --debug adds to this command)", 1, debug)
    return code if isinstance(code, int) else 0


def _failed(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print("octavo: " + " ".join(message.split()), file=sys.stderr)
    return code
