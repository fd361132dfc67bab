"""A tokenizer as Hugging Face folders hold it: which of six files says what.

tokenizer.json              vocabulary, merges, normalizer, pre-tokenizer, added tokens; without it:
tokenizer.model             SentencePiece
tokenizer_config.json       special tokens, whether texts begin with BOS, chat templates (or, before those,
                            chat_template.jinja with additional_chat_templates/, or chat_template.json)
special_tokens_map.json     special tokens that the config does not name
generation_config.json      what ends a completion; where it says nothing, config.json
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from octavo.errors import CheckpointError
from octavo.rundir import write_atomic
from octavo.text import sentencepiece
from octavo.text.tokens import DOCUMENT_ENDS, GENERATION_ENDS, TAG_TOKENS, SpecialTokens, looks_like_control

_DEFINITION, _SENTENCEPIECE = "tokenizer.json", "tokenizer.model"
_CONFIG, _SPECIAL_MAP = "tokenizer_config.json", "special_tokens_map.json"
_TEMPLATE, _LEGACY_TEMPLATE, _MORE_TEMPLATES = "chat_template.jinja", "chat_template.json", "additional_chat_templates"
_NAME = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class Files:
    """What was read, to be written again as it was."""

    config: Mapping[str, Any]
    """tokenizer_config.json, without chat templates."""
    special_tokens_map: Mapping[str, Any] | None = None
    templates: Mapping[str, str] = field(default_factory=dict)
    """Chat templates by name; "default" is the usual one."""
    definition: str | None = None
    """tokenizer.json; None: as the backend writes it."""
    origin: str | None = field(default=None, compare=False)
    """The folder or file that it was read from, for errors."""


def read_folder(folder: Path) -> tuple[tokenizers.Tokenizer, SpecialTokens, Files]:
    """Read it. Raises CheckpointError naming the file that is missing or damaged."""
    config = dict(_json(folder / _CONFIG) or {})
    special_map = _json(folder / _SPECIAL_MAP)
    templates = _templates(folder, config.pop("chat_template", None))
    definition = _text(folder / _DEFINITION)
    if definition is None:
        backend = _from_sentencepiece(folder)
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    else:
        backend = _backend(definition, folder / _DEFINITION)
    _add_tokens(backend, config, folder / _CONFIG)
    special = _special_tokens(folder, backend, {**(special_map or {}), **config}, templates)
    return backend, special, Files(config, special_map, templates, definition, str(folder))


def write_folder(folder: Path, files: Files, backend: tokenizers.Tokenizer) -> None:
    """Write it. Raises StorageError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / _DEFINITION, files.definition or backend.to_str(pretty=True))
    write_atomic(folder / _CONFIG, json.dumps(files.config, indent=2, ensure_ascii=False) + "\n")
    if files.special_tokens_map is not None:
        write_atomic(folder / _SPECIAL_MAP, json.dumps(files.special_tokens_map, indent=2, ensure_ascii=False) + "\n")
    for name, source in files.templates.items():
        path = folder / _TEMPLATE if name == "default" else folder / _MORE_TEMPLATES / f"{name}.jinja"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, source)


def adapted_kind(content: str, special: bool) -> bool:
    """Whether an added token counts as special here: tags are shown, and what looks like control is never typed."""
    return content not in TAG_TOKENS and (special or looks_like_control(content))


def end_of_document(backend: tokenizers.Tokenizer, eos: str) -> str:
    """What this vocabulary ends plain text with."""
    control = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    return next((token for token in DOCUMENT_ENDS if token in control), eos)


def _backend(definition: str, path: Path) -> tokenizers.Tokenizer:
    try:
        values = json.loads(definition)
        added = values["added_tokens"]
        kinds = [adapted_kind(token["content"], token["special"]) for token in added]
        if kinds != [token["special"] for token in added]:
            for token, special in zip(added, kinds, strict=True):
                token["special"] = special
            definition = json.dumps(values)
        return tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # `tokenizers` raises bare Exception
        raise CheckpointError(f"{path}: not a tokenizer: {error}") from error


def _from_sentencepiece(folder: Path) -> tokenizers.Tokenizer:
    path = folder / _SENTENCEPIECE
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder / _DEFINITION}: no such file; expected a model folder with a tokenizer"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return sentencepiece.backend(sentencepiece.read_model(data, str(path)), str(path))


def _add_tokens(backend: tokenizers.Tokenizer, config: Mapping[str, Any], path: Path) -> None:
    """Add what the config adds to the vocabulary; `transformers` does so too when it reads the folder."""
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    try:
        listed = sorted((int(id_), values) for id_, values in config.get("added_tokens_decoder", {}).items())
        for id_, values in listed:
            flags = {name: bool(values.get(name, False)) for name in ("single_word", "lstrip", "rstrip", "normalized")}
            special = adapted_kind(values["content"], bool(values.get("special", False)))
            token = AddedToken(values["content"], special=special, **flags)
            if token.content not in known:
                (backend.add_special_tokens if special else backend.add_tokens)([token])
            if backend.token_to_id(token.content) != id_:
                got = backend.token_to_id(token.content)
                raise CheckpointError(f"{path}: added_tokens_decoder gives {token.content!r} id {id_}, expected {got}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: added_tokens_decoder is no map of ids to tokens: {error!r}") from error


def _special_tokens(
    folder: Path, backend: tokenizers.Tokenizer, config: Mapping[str, Any], templates: Mapping[str, str]
) -> SpecialTokens:
    names = {key: _spelling(config.get(f"{key}_token")) for key in ("bos", "eos", "pad", "unk")}
    known = {key: token for key, token in names.items() if token and backend.token_to_id(token) is not None}
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in known.values() if token not in added])
    ends = {token for id_ in _end_ids(folder) if (token := backend.id_to_token(id_)) is not None}
    eos = known.get("eos")
    if eos is None:
        if names["eos"] or not ends:
            got = f"eos_token {names['eos']!r} is not in the vocabulary" if names["eos"] else "no eos_token"
            raise CheckpointError(f"{folder / _CONFIG}: {got}; expected the token that ends a completion")
        eos = min(ends)
    document = end_of_document(backend, eos)
    control = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    ends |= {eos, document}
    ends |= {token for token in control.intersection(GENERATION_ENDS) if token in templates.get("default", "")}
    bos = known.get("bos")
    add_bos = config.get("add_bos_token")
    if not isinstance(add_bos, bool):
        add_bos = backend.encode("", add_special_tokens=True).ids[:1] == [backend.token_to_id(bos or "")]
    return SpecialTokens(
        eos=eos,
        end_of_document=document,
        end_ids=frozenset(id_ for token in ends if (id_ := backend.token_to_id(token)) is not None),
        bos=bos,
        add_bos=add_bos and bos is not None,
        pad=known.get("pad"),
        unk=known.get("unk"),
    )


def _end_ids(folder: Path) -> list[int]:
    """What ends a completion; ids that the vocabulary lacks may be among them."""
    for name in ("generation_config.json", "config.json"):
        ids = (_json(folder / name) or {}).get("eos_token_id")
        if ids is not None:
            ids = ids if isinstance(ids, list) else [ids]
            if not all(isinstance(id_, int) and 0 <= id_ < 2**32 for id_ in ids):
                raise CheckpointError(f"{folder / name}: eos_token_id: expected an id or a list of them, got {ids}")
            return ids
    return []


def _spelling(token: Any) -> str | None:
    """A token is named by its spelling, or by an object that has it as `content`."""
    return token.get("content") if isinstance(token, Mapping) else token if isinstance(token, str) else None


def _templates(folder: Path, in_config: Any) -> dict[str, str]:
    default = _text(folder / _TEMPLATE)
    if default is not None:
        more = sorted((folder / _MORE_TEMPLATES).glob("*.jinja"))
        return {"default": default} | {path.stem: _text(path) or "" for path in more}
    legacy = (_json(folder / _LEGACY_TEMPLATE) or {}).get("chat_template")
    found = in_config if legacy is None else legacy
    if isinstance(found, str):
        return {"default": found}
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, Mapping)}
    named: dict[str, str] = {}
    for name, source in (found or {}).items() if isinstance(found or {}, Mapping) else [(None, None)]:
        if not (isinstance(name, str) and _NAME.fullmatch(name) and isinstance(source, str)):  # names become files
            raise CheckpointError(f"{folder / _CONFIG}: chat_template: expected a string, or strings by name")
        named[name] = source
    return named


def _json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    text = _text(path)
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
