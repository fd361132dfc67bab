"""Verbs that use a model."""

import json
from typing import Annotated

import typer

from octavo.cli.options import MODEL, Debug, Json, Model, Quantize, Threads
from octavo.pull import DEFAULT


def chat(
    model: Annotated[str | None, typer.Argument(help=f"{MODEL}. Default: {DEFAULT}.")] = None,
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="Ask one question and leave.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    think: Annotated[
        bool | None, typer.Option("--think/--no-think", help="For models that can do both (Qwen3). Default: its own.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: always the likeliest token.")] = 0.6,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, tokens.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same reply.")] = 0,
    quantize: Quantize = None,
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
    talk = conversation.open_conversation(model or DEFAULT, params, system, think, quantize)
    if prompt is None:
        talk.interactive()
    elif as_json:
        print(json.dumps(talk.ask(prompt).as_dict(), ensure_ascii=False))
    else:
        talk.ask(prompt, shown=True)


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
    quantize: Quantize = None,
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
    evaluation = assess(model, tasks or [], {key: value for key, value in given.items() if value is not None}, quantize)
    if as_json:
        print(json.dumps(as_plain(evaluation) | {"quantize": quantize}))
    else:
        print_evaluation(evaluation)
        if quantize:
            print(f"Weights were rounded to {quantize}.")
