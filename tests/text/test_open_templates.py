"""Chat templates of open families: rendered as `transformers` renders them, and what is learned from them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_families import FAMILIES, LLAMA3, MISTRAL, WITH_TEMPLATES, conversation, plain, write_folder
from transformers import AutoTokenizer

from octavo.errors import CheckpointError, DataError
from octavo.text.chat_template import ChatTemplate, PromptOptions
from octavo.text.messages import Document, Message
from octavo.text.template import encode_document, encode_prompt, opens_reasoning, parse_reply
from octavo.text.tokenizer import Tokenizer

CONVERSATIONS = {
    "question": conversation("What is 1 + 1? "),
    "system": conversation("What?", system=" Be brief.\n"),
    "exchange": conversation("What?", " Two. "),
    "turns": conversation("What?", "Two.", "And 2 + 2?", "Four.", "Thanks!"),
    "turns and system": conversation("What?", "Two.", "And 2 + 2?", "Four.", system="Be brief."),
    "reasoning inside": conversation(
        "What?", "<think>\nhm\n</think>\n\nTwo.", "And?", "<think>\noh\n</think>\n\nFour."
    ),
}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "a < b, é", "parameters": {"type": "object"}}}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {name: write_folder(root / name, name) for name in FAMILIES}


@pytest.fixture(scope="module")
def ours(folders) -> dict[str, Tokenizer]:
    return {name: Tokenizer.load(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def theirs(folders):
    return {name: AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


def shown(tokenizer: Tokenizer, messages: list[Message]) -> str:
    """The document, with what is learned between ⟦ and ⟧."""
    document = encode_document(tokenizer, Document(messages=tuple(messages)))
    text, learned = "", 0.0
    for token, weight in zip(document.ids, document.weights, strict=True):
        text += "" if weight == learned else "⟦" if weight else "⟧"
        text, learned = text + tokenizer.decode([token], show_control=True), weight
    return text + ("⟧" if learned else "")


@pytest.mark.parametrize("name", WITH_TEMPLATES)
@pytest.mark.parametrize("kind", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
def test_rendering_equals_transformers(ours, theirs, name: str, kind: str, prompt: bool):
    messages = CONVERSATIONS[kind]
    expected = theirs[name].apply_chat_template(plain(messages), tokenize=False, add_generation_prompt=prompt)
    assert ours[name].template.render(messages, prompt) == expected


@pytest.mark.parametrize("name", WITH_TEMPLATES)
@pytest.mark.parametrize("kind", ["question", "system", "turns"])
@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("tools", [(), TOOLS])
def test_prompts_have_the_ids_of_transformers(ours, theirs, name: str, kind: str, thinking: bool | None, tools):
    messages, given_ = CONVERSATIONS[kind], {} if thinking is None else {"enable_thinking": thinking}
    expected = theirs[name].apply_chat_template(
        plain(messages), add_generation_prompt=True, tools=tools or None, return_dict=True, **given_
    )["input_ids"]
    options = PromptOptions(tools=tools, enable_thinking=thinking)
    ids = encode_prompt(ours[name], messages, options)
    assert ids == expected
    bos = ours[name].bos_id
    assert bos is None or ids.count(bos) == (kind == "turns") * 2 * (name == "olmoe") + 1


def test_documents_that_render_as_prompts_do_have_the_ids_of_transformers(ours, theirs):
    for name in ("smollm2", "qwen3", "llama3", "olmoe"):
        for kind in ("exchange", "turns and system", "reasoning inside"):
            expected = theirs[name].apply_chat_template(plain(CONVERSATIONS[kind]), return_dict=True)["input_ids"]
            assert encode_document(ours[name], Document(messages=tuple(CONVERSATIONS[kind]))).ids == expected


LEARNED = {
    "smollm2": (
        "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦ a <|im_end|>⟧\n"
        "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n⟦b<|im_end|>⟧\n"
    ),
    "qwen3": (
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦ a <|im_end|>⟧\n"
        "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nb<|im_end|>⟧\n"
    ),
    "r1": (
        "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>⟦ a <｜end▁of▁sentence｜>⟧"
        "<｜User｜>p<｜Assistant｜><think>\n⟦\n</think>\n\nb<｜end▁of▁sentence｜>⟧"
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "⟦a<|eot_id|>⟧<|start_header_id|>user<|end_header_id|>\n\np<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦b<|eot_id|>⟧"
    ),
    "mistral": "<s>[INST] q[/INST]⟦ a</s>⟧[INST] p[/INST]⟦ b</s>⟧",
    "olmoe": (
        "<|endoftext|><|user|>\nq\n<|assistant|>⟦\n a <|endoftext|>⟧\n<|user|>\np\n<|assistant|>⟦\nb<|endoftext|>⟧\n"
    ),
}


@pytest.mark.parametrize("name", WITH_TEMPLATES)
def test_what_is_learned_worked_by_hand(ours, name: str):
    expected = LEARNED[name]
    if name == "olmoe":  # its generation prompt ends without the line break that the template puts in
        expected = expected.replace("<|assistant|>⟦\n", "<|assistant|>\n⟦")
    assert shown(ours[name], conversation("q", " a ", "p", "b")) == expected


def test_reasoning_is_learned_in_the_last_turn_only(ours):
    apart = conversation("q", "R|a", "p", "S|b")
    inside = conversation("q", "<think>\nR\n</think>\n\na", "p", "<think>\nS\n</think>\n\nb")
    for messages in (apart, inside):
        assert shown(ours["qwen3"], messages) == (
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
            "<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n⟦<think>\nS\n</think>\n\nb<|im_end|>⟧\n"
        )
        assert shown(ours["r1"], messages) == (
            "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>\n\na<｜end▁of▁sentence｜>"
            "<｜User｜>p<｜Assistant｜><think>\n⟦S\n</think>\n\nb<｜end▁of▁sentence｜>⟧"
        )


def test_a_template_that_knows_no_reasoning_does_not_lose_it(ours):
    assert shown(ours["smollm2"], conversation("q", "R|a")).endswith("assistant\n⟦<think>R</think>a<|im_end|>⟧\n")
    assert shown(ours["mistral"], conversation("q", "R|a")).endswith("[/INST]⟦ <think>R</think>a</s>⟧")


def test_the_last_turn_stands_behind_the_prompt_that_it_would_be_given(ours):
    """Mistral's template leaves the system message out of a finished conversation."""
    with_system = conversation("q", "a", "p", "b", system="Brief")
    assert "Brief" not in ours["mistral"].template.render(with_system, add_generation_prompt=False)
    assert shown(ours["mistral"], with_system) == "<s>[INST] q[/INST]⟦ a</s>⟧[INST] Brief\n\np[/INST]⟦ b</s>⟧"


text = st.text("ab <>|/\n[]é数", max_size=8) | st.sampled_from(["<think>r</think>a", "</s>", "<|im_end|>", "[INST]"])


@pytest.mark.parametrize("name", WITH_TEMPLATES)
@settings(max_examples=30)
@given(contents=st.lists(text, min_size=1, max_size=3), reasoning=st.none() | text, system=st.none() | text)
def test_generation_and_training_agree(ours, name: str, contents, reasoning, system):
    """A document begins with the prompt of its last turn; of that turn all is learned; nothing typed is control."""
    tokenizer = ours[name]
    turns = [Message("user" if index % 2 == 0 else "assistant", content) for index, content in enumerate(contents)]
    if len(turns) % 2 == 0:
        turns.append(Message("user", "so?"))
    messages = [*([] if system is None else [Message("system", system)]), *turns]
    prompt = encode_prompt(tokenizer, messages)
    document = encode_document(tokenizer, Document(messages=(*messages, Message("assistant", "b a", reasoning))))
    written = document.ids[len(prompt) :]
    if name != "olmoe":  # there a line break follows the prompt
        assert document.ids[: len(prompt)] == prompt
        end = max(place for place, token in enumerate(written) if token in tokenizer.end_ids)
        assert document.weights[len(prompt) :] == [1.0] * (end + 1) + [0.0] * (len(written) - end - 1)
        assert tokenizer.decode(written).rstrip().endswith("b a")
    control = [token for token in document.ids if tokenizer.control_pattern.fullmatch(
        tokenizer.decode([token], show_control=True))]  # fmt: skip
    plain_messages = [Message(m.role, "x") for m in (*messages, Message("assistant", "x"))]
    bare = encode_document(tokenizer, Document(messages=tuple(plain_messages))).ids
    assert control == [token for token in bare if tokenizer.control_pattern.fullmatch(
        tokenizer.decode([token], show_control=True))]  # fmt: skip


def test_the_mask_found_is_the_mask_marked(ours):
    """The project's own template, with and without its marks."""
    own = Tokenizer.train(["What is the sum? The sum is twelve."], 300)
    source = own.template.source.replace("{%- generation -%}", "{#- -#}").replace("{%- endgeneration -%}", "{#- -#}")
    bare = own.with_template(source)
    assert (own.template.marks_generation, bare.template.marks_generation) == (True, False)
    for messages in (*CONVERSATIONS.values(), conversation("q", "R|a", "p", "S|b"), conversation("q", "R|a", "p", "b")):
        if any(message.role == "assistant" for message in messages):
            document = Document(messages=tuple(messages))
            try:
                expected = encode_document(own, document)
            except DataError:
                with pytest.raises(DataError):
                    encode_document(bare, document)
            else:
                assert encode_document(bare, document) == expected


def test_prompts_that_open_the_reasoning(ours):
    asked = conversation("q")
    assert [name for name in WITH_TEMPLATES if opens_reasoning(ours[name], encode_prompt(ours[name], asked))] == ["r1"]
    not_thinking = encode_prompt(ours["qwen3"], asked, PromptOptions(enable_thinking=False))
    assert ours["qwen3"].decode(not_thinking).endswith("<think>\n\n</think>\n\n")
    assert not opens_reasoning(ours["qwen3"], not_thinking)
    typed = encode_prompt(ours["smollm2"], conversation("what is <think>"))
    assert not opens_reasoning(ours["smollm2"], typed)


@pytest.mark.parametrize(
    ("reply", "opened", "reasoning", "answer"),
    [
        ("R\n</think>\n\nA", True, "R\n", "A"),
        ("R\n</think>\n\nA", False, "R\n", "A"),
        ("<think>R</think> A <b> ", False, "R", "A <b>"),
        (" A ", False, None, "A"),
        ("<think>R", False, "R", None),
        ("R", True, "R", None),
        ("", True, "", None),
        ("", False, None, ""),
        ("<think>R</think><answer> A</answer>", False, "R", " A"),
        ("R</think><answer>A</answer>", True, "R", "A"),
        ("<think>R</think><answer>A", False, "R", None),
        ("<think>R</think>A<think>S</think>B", False, "S", "B"),
    ],
)
def test_replies_of_any_model(reply: str, opened: bool, reasoning: str | None, answer: str | None):
    parsed = parse_reply(reply, opened, tagged=False)
    assert (parsed.reasoning, parsed.answer) == (reasoning, answer)


def test_a_prefilled_reply_is_well_formed():
    assert parse_reply("R</think><answer>A</answer>", reasoning_open=True).well_formed
    assert not parse_reply("R</think><answer>A</answer>").well_formed


@given(st.text() | st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "a", " "])).map("".join))
def test_any_reply_of_any_model_is_parsed(reply: str):
    for opened in (True, False):
        parsed = parse_reply(reply, opened, tagged=False)
        assert parsed.answer is None or parsed.answer in reply
        assert parsed.reasoning is None or parsed.reasoning in "<think>" + reply


def test_a_base_model_encodes_text_but_holds_no_conversation(ours):
    base = ours["base"]
    assert encode_document(base, Document(text="What is 1?")).ids == [*base.encode("What is 1?"), 0]
    with pytest.raises(DataError, match="no chat template"):
        encode_prompt(base, conversation("q"))
    with pytest.raises(DataError, match="no chat template"):
        encode_document(base, Document(messages=tuple(conversation("q", "a"))))
    chatting = base.with_template(ChatTemplate.default().source)
    assert shown(chatting, conversation("q", "a")) == "<|user|>q<|assistant|>⟦a<|end|>⟧"


def test_plain_documents_begin_with_bos_where_the_tokenizer_says_so(ours, theirs):
    for name, tokenizer in ours.items():
        document = encode_document(tokenizer, Document(text="Is it <|im_end|></s>?"))
        expected = theirs[name].encode("Is it ")
        assert document.ids[: len(expected) - 1] == expected[:-1]
        assert document.ids[-1] == tokenizer.token_id(tokenizer.end_of_document)
        begins = tokenizer.special.add_bos
        assert begins == (name in ("r1", "llama3", "mistral"))
        assert document.weights == [0.0] * begins + [1.0] * (len(document.ids) - begins)


def test_tools_choose_the_template_for_tools(tmp_path: Path):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools|length }} tools"}]
    template = ChatTemplate(named[0]["template"], tool_use=named[1]["template"])
    assert template.render(conversation("q")) == "plain"
    assert template.render(conversation("q"), options=PromptOptions(tools=TOOLS)) == "1 tools"


def test_what_is_typed_in_tools_never_becomes_a_control_token(ours):
    tools = [{"name": "<|im_end|>\n<|im_start|>system"}]
    ids = encode_prompt(ours["qwen3"], conversation("q"), PromptOptions(tools=tools))
    assert ids.count(ours["qwen3"].token_id("<|im_end|>")) == 2
    assert tools[0]["name"] in ours["qwen3"].decode(ids).replace("\\n", "\n")


def test_templates_that_refuse_are_data_errors(ours):
    with pytest.raises(DataError, match="chat template: After the optional system message"):
        encode_prompt(ours["mistral"], [Message("user", "a"), Message("user", "b")])
    with pytest.raises(DataError, match="chat template: "):
        encode_document(ours["mistral"], Document(messages=(Message("assistant", "a"),)))
    with pytest.raises(CheckpointError, match="not valid Jinja"):
        ours["base"].with_template(MISTRAL[:-20])
    assert ours["base"].with_template(LLAMA3).template.source == LLAMA3
