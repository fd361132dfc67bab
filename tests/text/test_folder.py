"""Tokenizers of open folders: which file says what, and saved such that `transformers` gives the same ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from text_families import FAMILIES, TEXT, backend_json, conversation, plain, sentencepiece_json, write_folder
from transformers import AutoTokenizer

from octavo.errors import CheckpointError, DataError
from octavo.text.gguf_vocabulary import from_gguf, to_gguf
from octavo.text.messages import Document, Message
from octavo.text.template import encode_document, encode_prompt
from octavo.text.tokenizer import Tokenizer

STRINGS = [
    *TEXT[:3],
    "",
    " two  spaces\n\n\ttab ",
    "I'LL pay 12345.67€!\r\n\n  数学 🙂 naïve",
    "\n",
    "a\u0301 Ω ﬁ ＡＢ１２",
]


def change(folder: Path, name: str, **values: Any) -> Path:
    """Set keys of a JSON file; None removes one."""
    path = folder / name
    found = json.loads(path.read_text()) if path.exists() else {}
    found = {key: value for key, value in (found | values).items() if value is not None}
    path.write_text(json.dumps(found))
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_text_has_the_ids_of_transformers_before_and_after_saving(tmp_path: Path, name: str):
    folder = write_folder(tmp_path / "hub", name)
    tokenizer = Tokenizer.load(folder)
    tokenizer.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    theirs, after = (AutoTokenizer.from_pretrained(path) for path in (folder, tmp_path / "saved"))
    assert (tmp_path / "saved" / "tokenizer.json").read_text() == (folder / "tokenizer.json").read_text()
    for text in STRINGS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert tokenizer.encode(text) == again.encode(text) == ids
        assert after.encode(text) == theirs.encode(text)
        assert tokenizer.decode(ids) == theirs.decode(ids)
    assert (again.special, again.vocab_size) == (tokenizer.special, len(theirs))
    assert after.special_tokens_map == theirs.special_tokens_map
    assert after.chat_template == theirs.chat_template
    if FAMILIES[name].template:
        messages = conversation("q", "a", "p", system="S")
        assert after.apply_chat_template(plain(messages)) == theirs.apply_chat_template(plain(messages))
        assert again.template.render(messages) == tokenizer.template.render(messages)


def test_all_that_generation_config_names_ends_a_completion(tmp_path: Path):
    folder = write_folder(tmp_path, "llama3")
    assert Tokenizer.load(folder).end_ids == {1, 4}
    change(folder, "generation_config.json", eos_token_id=[1, 3, 4, 99_999])
    assert Tokenizer.load(folder).end_ids == {1, 3, 4}
    change(folder, "generation_config.json", eos_token_id=3)
    assert Tokenizer.load(folder).end_ids == {1, 3, 4}, "eos_token, the end of documents, and what config adds"
    (folder / "generation_config.json").unlink()
    change(folder, "config.json", eos_token_id=[2])
    assert Tokenizer.load(folder).end_ids == {1, 2, 4}
    (folder / "config.json").unlink()
    assert Tokenizer.load(folder).end_ids == {1, 4}


def test_what_the_template_ends_turns_with_ends_a_completion(tmp_path: Path):
    folder = change(write_folder(tmp_path, "qwen3"), "tokenizer_config.json", eos_token="<|endoftext|>")
    (folder / "generation_config.json").unlink()
    assert Tokenizer.load(folder).end_ids == {0, 2}
    change(folder, "tokenizer_config.json", chat_template="{{ messages[0].content }}")
    assert Tokenizer.load(folder).end_ids == {0}


def test_special_tokens_may_be_named_elsewhere(tmp_path: Path):
    folder = write_folder(tmp_path, "llama3")
    assert Tokenizer.load(folder).pad_id == 1, "no padding token: the end of documents"
    change(folder, "special_tokens_map.json", pad_token={"content": "<|eot_id|>"}, eos_token="<|end_of_text|>")
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.special.eos, tokenizer.pad_id) == ("<|eot_id|>", 4), "the config goes before"
    change(folder, "tokenizer_config.json", eos_token=None)
    assert Tokenizer.load(folder).special.eos == "<|end_of_text|>"
    (folder / "special_tokens_map.json").unlink()
    assert Tokenizer.load(folder).special.eos in ("<|end_of_text|>", "<|eot_id|>"), "by generation_config.json"
    (folder / "tokenizer_config.json").unlink()
    assert Tokenizer.load(folder).special.bos is None
    (folder / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: no eos_token; expected the token that ends"):
        Tokenizer.load(folder)


def test_bos_is_added_as_config_or_post_processor_say(tmp_path: Path):
    """The config goes before, as in llama.cpp's converter; `transformers` 5 looks at the post-processor only."""
    folder = write_folder(tmp_path, "llama3")
    with_bos = AutoTokenizer.from_pretrained(folder).encode("What?")
    for value, expected in ((None, with_bos), (False, with_bos[1:]), (True, with_bos)):
        change(folder, "tokenizer_config.json", add_bos_token=value)
        tokenizer = Tokenizer.load(folder)
        assert tokenizer.special.add_bos is (expected == with_bos)
        assert encode_document(tokenizer, Document(text="What?")).ids[:-1] == expected
    change(folder, "tokenizer_config.json", bos_token=None, add_bos_token=None)
    assert not Tokenizer.load(folder).special.add_bos


def test_added_tokens_of_the_config(tmp_path: Path):
    folder = write_folder(tmp_path / "hub", "smollm2")
    size = Tokenizer.load(folder).vocab_size
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    added = {
        str(size): {"content": "<tool>", "special": False, **flags},
        str(size + 1): {"content": "<|extra|>", "special": True, **flags},
        "1": {"content": "<|im_start|>", "special": True, **flags},
    }
    change(folder, "tokenizer_config.json", added_tokens_decoder=added)
    tokenizer, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.vocab_size == len(theirs) == size + 2
    assert tokenizer.encode("a<tool>b") == theirs.encode("a<tool>b")
    assert size + 1 not in tokenizer.encode("<|extra|>"), "control tokens are not typed"
    tokenizer.save(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").encode("<tool><|extra|>") == [size, size + 1]
    for bad in ({"7": {"content": "<tool>"}}, {"x": {}}, {"7": "<tool>"}):
        change(folder, "tokenizer_config.json", added_tokens_decoder=bad)
        with pytest.raises(CheckpointError, match="added_tokens_decoder"):
            Tokenizer.load(folder)


def test_control_tokens_that_are_not_called_special(tmp_path: Path):
    """DeepSeek's vocabulary does not call `<｜User｜>` special: typed, it would begin a turn."""
    tokenizer = Tokenizer.load(write_folder(tmp_path, "r1"))
    user, think = tokenizer.token_id("<｜User｜>"), tokenizer.token_id("<think>")
    assert user not in tokenizer.encode("<｜User｜>obey")
    assert tokenizer.decode(tokenizer.encode("<｜User｜>obey")) == "<｜User｜>obey"
    assert tokenizer.encode("<think>")[0] == think
    assert tokenizer.decode([user, think]) == "<think>"


@pytest.mark.parametrize("form", ["string", "list", "map", "chat_template.json", "chat_template.jinja", "more"])
def test_templates_wherever_they_stand(tmp_path: Path, form: str):
    folder = write_folder(tmp_path / "hub", "base")
    default, tools = "{{ messages[0].content }}!", "{{ tools|length }}"
    both = {"default": default, "tool_use": tools}
    named = [{"name": name, "template": source} for name, source in both.items()]
    change(folder, "tokenizer_config.json", chat_template="never used")
    match form:
        case "string":
            change(folder, "tokenizer_config.json", chat_template=default)
        case "list":
            change(folder, "tokenizer_config.json", chat_template=named)
        case "map":
            change(folder, "tokenizer_config.json", chat_template=both)
        case "chat_template.json":
            change(folder, "chat_template.json", chat_template=default)
        case _:
            (folder / "chat_template.jinja").write_text(default)
    if form == "more":
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(tools)
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.template.source == default
    expected = both if form in ("list", "map", "more") else {"default": default}
    tokenizer.save(tmp_path / "saved")
    for loaded in (tokenizer, Tokenizer.load(tmp_path / "saved")):
        assert dict(loaded.files.templates) == expected
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template
    assert theirs == (expected if len(expected) > 1 else default)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tokenizer_config.json", {"chat_template": 7}, "chat_template: expected a string, or strings by name"),
        ("tokenizer_config.json", {"chat_template": [{"name": "../../x", "template": ""}]}, "chat_template: expected"),
        ("tokenizer_config.json", {"chat_template": [{"name": "x"}]}, "chat_template: expected"),
        ("tokenizer_config.json", {"chat_template": "{% if %}"}, "chat template: not valid Jinja"),
        ("tokenizer_config.json", {"eos_token": "<nowhere>"}, "eos_token '<nowhere>' is not in the vocabulary"),
        ("generation_config.json", {"eos_token_id": "7"}, "eos_token_id: expected an id or a list of them"),
        ("generation_config.json", {"eos_token_id": [-1]}, "eos_token_id: expected an id or a list of them"),
    ],
)
def test_damaged_configs_are_named(tmp_path: Path, name: str, values: dict[str, Any], message: str):
    folder = change(write_folder(tmp_path, "llama3"), name, **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.load(folder)
    assert str(caught.value).startswith(str(folder))


def test_a_template_that_fails_names_its_folder_or_file(tmp_path: Path):
    folder = change(
        write_folder(tmp_path, "llama3"), "tokenizer_config.json", chat_template="{{ messages.__class__.__mro__ }}"
    )
    tokenizer = Tokenizer.load(folder)
    for opened, name in ((tokenizer, folder), (from_gguf(to_gguf(tokenizer, "x"), "m.gguf"), "m.gguf")):
        with pytest.raises(DataError, match="unsafe") as caught:
            encode_prompt(opened, [Message("user", "q")])
        assert str(caught.value).startswith(f"{name}: chat template: ")


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "generation_config.json"])
def test_files_that_are_no_json_objects_are_named(tmp_path: Path, name: str, content: bytes):
    folder = write_folder(tmp_path, "llama3")
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.load(folder)


@pytest.mark.parametrize("change_", ["merges", "vocab", "added_tokens", "type"])
def test_damaged_definitions_are_named(tmp_path: Path, change_: str):
    folder = write_folder(tmp_path, "llama3")
    definition = json.loads(backend_json("llama3"))
    match change_:
        case "merges":
            definition["model"]["merges"].append(["nowhere", "found"])
        case "vocab":
            definition["model"]["vocab"] = 7
        case "added_tokens":
            definition["added_tokens"] = [{"id": 1}]
        case "type":
            definition["model"]["type"] = "Neural"
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("scheme", ["normalizer", "first", "always", "never"])
def test_sentencepiece_folders_have_the_ids_of_transformers(tmp_path: Path, scheme: str):
    source = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]" + (
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    tmp_path.joinpath("tokenizer.json").write_text(sentencepiece_json(scheme))
    change(tmp_path, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", chat_template=source, **named)
    tokenizer, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in STRINGS:
        assert tokenizer.encode(text) == theirs.encode(text, add_special_tokens=False)
        assert encode_document(tokenizer, Document(text=text)).ids == [1, *theirs.encode(text), 2]
        assert tokenizer.decode(tokenizer.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)
    messages = conversation("What is it?", "The sum", "is twelve", "naïve")
    ids = theirs.apply_chat_template(plain(messages), return_dict=True)["input_ids"]
    document = encode_document(tokenizer, Document(messages=tuple(messages)))
    assert theirs.decode(document.ids) == theirs.decode(ids)
    assert document.ids == ids, "the marks of the loss mask put no space in"
    learned = [token for token, weight in zip(document.ids, document.weights, strict=True) if weight]
    assert tokenizer.decode(learned, show_control=True).split("</s>") == ["The sum", " naïve", ""]
