"""A conversation in the terminal: the reasoning, dim and apart, then the answer, as the tokens come."""

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.errors import OctavoError
from octavo.model.quantize import Quantization
from octavo.models import find_model
from octavo.tasks.types import Completion, CompletionRequest, SamplingParams
from octavo.text.chat_template import PromptOptions
from octavo.text.messages import Message
from octavo.text.splitter import Part, ReplySplitter
from octavo.text.template import THINK, encode_prompt, opens_reasoning, parse_reply
from octavo.text.tokenizer import Tokenizer
from octavo.weights.open import open_model

_COMMANDS = "/new begins anew, /exit or Ctrl-D leaves."
_COMMAND = re.compile(r"/[a-z]*")
_STYLES = {"reasoning": "dim", "answer": "bold", "outside": ""}


@dataclass(frozen=True)
class Said:
    """One reply. `answer` is what follows the reasoning where the model used no answer tags."""

    reasoning: str | None
    answer: str | None
    completion_tokens: int
    finish_reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Conversation:
    """One model, one person, turn by turn."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        params: SamplingParams,
        system: str | None,
        console: Console,
        options: PromptOptions | None = None,
    ):
        self.engine = engine
        self.tokenizer = tokenizer
        self.params = params
        self.console = console
        self.options = options
        self.system = [Message("system", system)] if system else []
        self.messages: list[Message] = list(self.system)

    def ask(self, question: str, shown: bool = False) -> Said:
        """Ask, remember, return; `shown`: print the reply while it is written. Raises RequestError."""
        messages = [*self.messages, Message("user", question)]
        request = CompletionRequest(tuple(encode_prompt(self.tokenizer, messages, self.options)), self.params)
        reasoning_open = opens_reasoning(self.tokenizer, request.prompt_ids)
        completion = self._complete(request, reasoning_open, shown)
        reply = parse_reply(completion.text, reasoning_open, tagged=False)
        written = THINK + completion.text if reasoning_open else completion.text
        self.messages = [*messages, Message("assistant", written)]
        return Said(reply.reasoning, reply.answer, len(completion.ids), completion.finish_reason)

    def interactive(self) -> None:
        """Read questions until the input ends. Ctrl-C stops a reply, a second one leaves.

        Where questions come out of a pipe or a file, nothing but the replies is shown.
        """
        prompt = "> " if sys.stdin.isatty() else ""
        if prompt:
            self.console.print(Text(f"Ask away. {_COMMANDS}", style="dim"))
        while True:
            try:
                question = self.console.input(prompt).strip()
            except EOFError:
                return
            match question:
                case "":
                    continue
                case "/exit" | "/quit":
                    return
                case "/new":
                    self.messages = list(self.system)
                    continue
                case _ if _COMMAND.fullmatch(question):
                    self.console.print(Text(f"There is no {question}. {_COMMANDS}", style="dim"))
                    continue
            try:
                self.ask(question, shown=True)
            except KeyboardInterrupt:
                self.engine.clear()
                self.console.print(Text("\n(stopped)", style="dim"))
            except OctavoError as error:
                anew = ", or begin anew with /new" if self.messages != self.system else ""
                self.console.print(Text(f"{error}{anew}", style="red"))

    def _complete(self, request: CompletionRequest, reasoning_open: bool, shown: bool) -> Completion:
        """Let the engine write, showing it part by part."""
        self.engine.submit(request, streamed=True)
        splitter, printer = ReplySplitter(reasoning_open), _Printer(self.console)
        completion = None
        while completion is None:
            for event in self.engine.step():
                completion = event.completion or completion
                for part, text in splitter.feed(event.text) if shown else ():
                    printer.show(part, text)
        if shown:
            for part, text in splitter.flush():
                printer.show(part, text)
            self.console.print()
            if completion.finish_reason == "length":
                self.console.print(Text(f"(cut off after {len(completion.ids)} tokens; see --max-tokens)", style="dim"))
        return completion


class _Printer:
    """Prints the parts of a reply as they come, each beginning on a line of its own."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._part: Part | None = None

    def show(self, part: Part, text: str) -> None:
        if part != self._part:
            text = text.lstrip("\n")  # behind a tag
            if not text.strip():
                return  # white space between the parts
            if self._part is not None:
                self._console.print()
            self._part = part
        self._console.print(Text(text, style=_STYLES[part]), end="", soft_wrap=True)


def open_conversation(
    name: str | Path,
    params: SamplingParams,
    system: str | None,
    think: bool | None = None,
    quantization: Quantization | None = None,
) -> Conversation:
    """Load MODEL for a conversation on this terminal; `think`: see PromptOptions. Raises CheckpointError."""
    model, tokenizer = open_model(find_model(name), quantization)
    engine = Engine(model, tokenizer, EngineConfig(max_rows=1))
    return Conversation(
        engine, tokenizer, params, system, Console(file=sys.stdout), PromptOptions(enable_thinking=think)
    )
