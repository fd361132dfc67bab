"""Chat templates: a conversation as one string, the same that `apply_chat_template` of `transformers` gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from octavo.text.messages import Message
from octavo.text.sandbox.template import SandboxedTemplate
from octavo.text.tokens import END_THINK, THINK

_THINKING = ("enable_thinking", "thinking")  # Qwen3 and others; DeepSeek-V3.1


@dataclass(frozen=True)
class PromptOptions:
    """What a template can be told beside the messages; templates that know nothing of it ignore it."""

    tools: Sequence[Mapping[str, Any]] = ()
    """JSON schemas of functions that the model may call."""
    documents: Sequence[Mapping[str, str]] = ()
    """Each with `title` and `text`, to answer from."""
    enable_thinking: bool | None = None
    """None: as the template's author chose."""
    reasoning_effort: str | None = None
    """How much to think, in the template's own words ("low", "high", ...); None: as its author chose."""

    def variables(self) -> dict[str, Any]:
        """As templates name them."""
        thinking = {} if self.enable_thinking is None else dict.fromkeys(_THINKING, self.enable_thinking)
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return {"tools": list(self.tools) or None, "documents": list(self.documents) or None, **thinking, **effort}


class ChatTemplate:
    """Jinja, sandboxed. `variables` are the special tokens (`bos_token`, ...); `tool_use` is used when there are tools.

    `origin`, the file or folder that it stands in, is named in errors. Raises CheckpointError for what is no template.
    """

    def __init__(
        self,
        source: str,
        variables: Mapping[str, str] | None = None,
        tool_use: str | None = None,
        origin: str | None = None,
    ) -> None:
        self.source = source
        self._variables = dict(variables or {})
        where = "chat template" if origin is None else f"{origin}: chat template"
        self._template = SandboxedTemplate(source, where)
        self._tool_use = None if tool_use is None else SandboxedTemplate(tool_use, where)
        # A template that does not know of reasoning kept apart would drop it silently. Those that know of `<think>`
        # in the content are of models that write it on lines of its own.
        self._reasoning_apart = "reasoning_content" in source
        self._lines = ("\n", "\n\n") if END_THINK in source else ("", "")

    @classmethod
    def default(cls) -> ChatTemplate:
        """The project's own format, as the docstring of `template` gives it."""
        return cls(resources.files("octavo.text").joinpath("chat_template.jinja").read_text(encoding="utf-8"))

    @property
    def marks_generation(self) -> bool:
        """Whether the template says itself, by `{% generation %}`, what the model writes."""
        return self._template.marks_generation

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = True, options: PromptOptions | None = None
    ) -> str:
        """The conversation as one string. Raises DataError."""
        variables = (options or PromptOptions()).variables()
        return self.render_plain([self.plain(message) for message in messages], add_generation_prompt, variables)

    def plain(self, message: Message) -> dict[str, Any]:
        """A message as templates read it."""
        calls = {"tool_calls": list(message.tool_calls)} if message.tool_calls else {}
        if message.reasoning is None:
            return {"role": message.role, "content": message.content, **calls}
        if not self._reasoning_apart:
            line, lines = self._lines
            content = f"{THINK}{line}{message.reasoning}{line}{END_THINK}{lines}{message.content}"
            return {"role": message.role, "content": content, **calls}
        return {"role": message.role, "content": message.content, "reasoning_content": message.reasoning, **calls}

    def render_plain(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        variables: Mapping[str, Any],
        opening: str = "",
        closing: str = "",
    ) -> str:
        """As `render`, with `opening` and `closing` around what the template marks as generated."""
        template = self._tool_use if self._tool_use is not None and variables.get("tools") else self._template
        given = {"messages": list(messages), "add_generation_prompt": add_generation_prompt}
        return template.render({**self._variables, **variables, **given}, opening, closing)
