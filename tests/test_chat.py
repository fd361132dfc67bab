import io
import json

import pytest
import torch
from rich.console import Console

from octavo.chat import Conversation, open_conversation
from octavo.engine.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.errors import CheckpointError
from octavo.model.config import GQAConfig, ModelConfig
from octavo.model.transformer import Transformer
from octavo.models import find_model
from octavo.tasks.types import Completion, SamplingParams
from octavo.text.tokenizer import Tokenizer
from octavo.weights.hf import save_model


class Scripted:
    """Stands in for the engine's model: `Conversation` sees completions with the text it is given."""

    def __init__(self, texts: list[str], finish_reason: str = "stop"):
        self.texts = texts
        self.finish_reason = finish_reason
        self.prompts: list[tuple[int, ...]] = []

    def submit(self, request, streamed=False):
        self.prompts.append(request.prompt_ids)
        return 0

    def step(self):
        from octavo.engine.sequence import Event

        text = self.texts[len(self.prompts) - 1]
        completion = Completion(self.prompts[-1], (7,) * 5, (0.0,) * 5, text, self.finish_reason)
        return [Event(0, 0, text[:9]), Event(0, 0, text[9:], completion)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["What is this?"], 280)


def conversation(engine, tokenizer, system=None) -> tuple[Conversation, io.StringIO]:
    shown = io.StringIO()
    params = SamplingParams(max_tokens=32)
    return Conversation(engine, tokenizer, params, system, Console(file=shown, color_system=None)), shown


def test_a_reply_has_its_parts(tokenizer):
    talk, shown = conversation(Scripted(["<think>1+1</think><answer>2</answer>"]), tokenizer)
    said = talk.ask("What is 1 + 1?", shown=True)
    assert said.as_dict() == {"reasoning": "1+1", "answer": "2", "completion_tokens": 5, "finish_reason": "stop"}
    assert shown.getvalue() == "1+1\n2\n"


def test_a_reply_without_tags_is_all_answer(tokenizer):
    talk, _ = conversation(Scripted(["just so"]), tokenizer)
    said = talk.ask("Why?")
    assert (said.reasoning, said.answer) == (None, "just so")


def test_reasoning_that_was_cut_off_is_no_answer(tokenizer):
    talk, shown = conversation(Scripted(["<think>1+1=2. 2+"], "length"), tokenizer)
    said = talk.ask("What is it?", shown=True)
    assert (said.reasoning, said.answer, said.finish_reason) == ("1+1=2. 2+", None, "length")
    assert "--max-tokens" in shown.getvalue()


def test_line_breaks_behind_a_tag_are_not_shown(tokenizer):
    talk, shown = conversation(Scripted(["<think>\n1+1\n</think>\n\n  2"]), tokenizer)
    said = talk.ask("What is it?", shown=True)
    assert said.reasoning == "\n1+1\n"
    assert shown.getvalue() == "1+1\n\n  2\n"


class Typed(io.StringIO):
    """What somebody types, or (`terminal` false) what comes out of a pipe."""

    def __init__(self, text: str, terminal: bool):
        super().__init__(text)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_questions_are_read_to_their_end(tokenizer, monkeypatch, terminal):
    monkeypatch.setattr("sys.stdin", Typed("First?\n\n/new\nSecond?\n", terminal))
    engine = Scripted(["<answer>1</answer>", "<answer>2</answer>"])
    talk, shown = conversation(engine, tokenizer)
    talk.interactive()
    assert "First?" not in tokenizer.decode(engine.prompts[1])
    if terminal:
        assert shown.getvalue() == "Ask away. /new begins anew, /exit or Ctrl-D leaves.\n> 1\n> > > 2\n> "
    else:
        assert shown.getvalue() == "1\n2\n"


def test_an_unknown_command_is_no_question(tokenizer, monkeypatch):
    monkeypatch.setattr("sys.stdin", Typed("/help\n/exit\nnever read\n", True))
    engine = Scripted([])
    talk, shown = conversation(engine, tokenizer)
    talk.interactive()
    assert engine.prompts == []
    assert "There is no /help. /new begins anew, /exit or Ctrl-D leaves." in shown.getvalue()


def test_turns_are_remembered_without_their_reasoning(tokenizer):
    engine = Scripted(["<think>secret</think><answer>2</answer>", "<answer>3</answer>"])
    talk, _ = conversation(engine, tokenizer, system="Be brief.")
    talk.ask("First?")
    talk.ask("Second?")
    second = tokenizer.decode(engine.prompts[1])
    assert [second.count(text) for text in ("Be brief.", "First?", "<answer>2</answer>", "Second?")] == [1, 1, 1, 1]
    assert "secret" not in second


def small_model(tokenizer: Tokenizer) -> Transformer:
    torch.manual_seed(0)
    attention = GQAConfig(heads=2, kv_heads=1, qkv_bias=True)
    return Transformer(
        ModelConfig(
            vocab_size=tokenizer.vocab_size, width=16, layers=1, ffn_width=16, attention=attention, tie_embeddings=True,
            max_positions=64,
        )
    )  # fmt: skip


def test_a_real_engine_and_a_model_folder(tokenizer, tmp_path):
    model = small_model(tokenizer)
    save_model(tmp_path / "base" / "model", model, tokenizer)
    (tmp_path / "config.yaml").write_text("result: base\n")
    params = SamplingParams(max_tokens=8, temperature=0.0)
    expected = open_conversation(tmp_path, params, None).ask("What?").as_dict()
    talk = Conversation(Engine(model, tokenizer, EngineConfig(max_rows=1)), tokenizer, params, None, Console())
    assert json.loads(json.dumps(expected)) == talk.ask("What?").as_dict()
    assert expected["completion_tokens"] == 8
    for path in (tmp_path / "base", tmp_path / "base" / "model"):
        assert find_model(path) == tmp_path / "base" / "model"


def test_a_conversation_that_grows_too_long_goes_on_after_new(tokenizer, monkeypatch):
    talk, shown = conversation(Engine(small_model(tokenizer), tokenizer, EngineConfig(max_rows=1)), tokenizer)
    monkeypatch.setattr("sys.stdin", Typed("What is this?\nWhat?\nWhat?\nWhat?\nWhat?\n/new\nWhat?\n", False))
    talk.interactive()
    assert "shorten it, or begin anew with /new" in " ".join(shown.getvalue().split())
    assert [message.role for message in talk.messages] == ["user", "assistant"]


def test_what_is_no_model_says_what_it_is(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        find_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no model"):
        find_model(tmp_path)
    (tmp_path / "config.yaml").write_text("result: final\n")
    with pytest.raises(CheckpointError, match="its result, stage final, has not finished"):
        find_model(tmp_path)
    (tmp_path / "config.yaml").write_text("7\n")
    with pytest.raises(CheckpointError, match="not the config of a run"):
        find_model(tmp_path)
