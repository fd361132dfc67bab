"""Model folders in small: the control tokens of open families, and templates with the mechanisms of theirs.

The templates are written for these tests; they do what the published ones do, without their tools and system prompts.
"""

# ruff: noqa: E501 (templates)
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from octavo.text.messages import Message
from octavo.text.pre_tokenizers import PRE_TOKENIZERS

TEXT = [
    f"What is {a} plus {b}? The sum is {a + b}. I'll think: naïve café, 数学, <b>." for a in range(9) for b in range(9)
]

CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
Help.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

QWEN3 = """
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- if ns.searching and message.role == "user" and not message.content.startswith('<tool_response>') %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = (messages|length - 1) - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson + "\\n" }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- else %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

R1 = """{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}
{%- endfor %}{{ bos_token }}{{ ns.system }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% endif %}
    {%- if message['role'] == 'assistant' and message['content'] is not none %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
        {{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""

LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}"""

OLMOE = """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] }}
{% elif message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""


@dataclass(frozen=True)
class Family:
    """What makes a folder. Special tokens come first in the vocabulary; `plain` ones are added, but not special."""

    name: str
    pre: str
    template: str | None
    special: tuple[str, ...]
    eos: str
    plain: tuple[str, ...] = ()
    bos: str | None = None
    add_bos: bool = False
    ends: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    family.name: family
    for family in (
        Family("smollm2", "smollm", CHATML, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>"),
        Family(
            "qwen3",
            "qwen2",
            QWEN3,
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
            "<|im_end|>",
            plain=("<think>", "</think>", "<tool_call>"),
            ends=("<|im_end|>", "<|endoftext|>"),
            config={"add_bos_token": False, "pad_token": "<|endoftext|>", "bos_token": None},
        ),
        Family(
            "r1",
            "deepseek-v3",
            R1,
            ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
            "<｜end▁of▁sentence｜>",
            plain=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
            bos="<｜begin▁of▁sentence｜>",
            add_bos=True,
            config={"add_bos_token": True, "eos_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>"}},
        ),
        Family(
            "llama3",
            "llama-bpe",
            LLAMA3,
            ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            "<|eot_id|>",
            bos="<|begin_of_text|>",
            add_bos=True,
            ends=("<|end_of_text|>", "<|eot_id|>"),
        ),
        Family("mistral", "tekken", MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "</s>", bos="<s>", add_bos=True),
        Family("olmoe", "olmo", OLMOE, ("<|endoftext|>", "<|padding|>"), "<|endoftext|>", bos="<|endoftext|>"),
        Family("base", "gpt-2", None, ("<|endoftext|>",), "<|endoftext|>"),
    )
}
WITH_TEMPLATES = [name for name, family in FAMILIES.items() if family.template]


@cache
def backend_json(name: str) -> str:
    """tokenizer.json of a family."""
    family = FAMILIES[name]
    kind = PRE_TOKENIZERS[family.pre]
    model = {"type": "BPE", "vocab": {}, "merges": [], "ignore_merges": kind.ignore_merges}
    shell = {"version": "1.0", "added_tokens": [], "normalizer": kind.normalizer, "pre_tokenizer": kind.definition()}
    backend = Tokenizer.from_str(json.dumps({**shell, "post_processor": None, "decoder": None, "model": model}))
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(family.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    definition = json.loads(backend.to_str())
    definition["model"]["ignore_merges"] = kind.ignore_merges
    backend = Tokenizer.from_str(json.dumps(definition))
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in family.plain])
    if family.bos and family.add_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A",
            pair=f"{family.bos} $A {family.bos} $B",
            special_tokens=[(family.bos, backend.token_to_id(family.bos))],
        )
    return backend.to_str(pretty=True)


def write_folder(folder: Path, name: str) -> Path:
    """A folder as the hub has it: tokenizer.json, tokenizer_config.json, generation_config.json."""
    family = FAMILIES[name]
    backend = Tokenizer.from_str(backend_json(name))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend_json(name), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": family.bos, "eos_token": family.eos}
    config |= {"model_max_length": 4096, "clean_up_tokenization_spaces": False} | family.config
    if family.template:
        config["chat_template"] = family.template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if family.ends:
        ends = {"eos_token_id": [backend.token_to_id(token) for token in family.ends]}
        (folder / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    return folder


def sentencepiece_json(scheme: str) -> str:
    """tokenizer.json of a SentencePiece family: `scheme` is "normalizer" (Llama 2) or one of Metaspace (Mistral)."""
    alphabet = sorted({char for text in TEXT for char in text.replace(" ", "▁")})
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False)
    backend.pre_tokenizer = spaces
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False, max_token_length=8
    )
    backend.train_from_iterator(TEXT, trainer)
    definition = json.loads(backend.to_str())
    definition["added_tokens"] = [
        token for token in definition["added_tokens"] if not token["content"].startswith("<0")
    ]
    backend = Tokenizer.from_str(json.dumps(definition))
    replace = normalizers.Replace(" ", "▁")
    if scheme == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        backend.pre_tokenizer = None  # pyright: ignore[reportAttributeAccessIssue]
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend.to_str(pretty=True)


def conversation(*contents: str, system: str | None = None) -> list[Message]:
    """User and assistant in turn; "R|A" is a reply A with the reasoning R apart."""
    messages = [] if system is None else [Message("system", system)]
    for index, content in enumerate(contents):
        reasoning, bar, answer = content.rpartition("|")
        if index % 2 == 0:
            messages.append(Message("user", content))
        else:
            messages.append(Message("assistant", answer, reasoning if bar else None))
    return messages


def plain(messages: list[Message]) -> list[dict[str, str]]:
    """As `transformers` takes them."""
    return [
        {"role": message.role, "content": message.content}
        | ({} if message.reasoning is None else {"reasoning_content": message.reasoning})
        for message in messages
    ]
