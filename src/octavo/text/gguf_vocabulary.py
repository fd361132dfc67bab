"""Tokenizers out of GGUF metadata and into it, such that llama.cpp and we give the same ids.

Two kinds: "gpt2", byte-level BPE with merges and the name of a pre-tokenizer, and "llama", SentencePiece with scores.
What a file does not say has the default that llama.cpp gives it (`llama-vocab.cpp`).
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, models, processors

from octavo.errors import CheckpointError
from octavo.text import sentencepiece
from octavo.text.folder import Files, adapted_kind, end_of_document
from octavo.text.pre_tokenizers import PRE_TOKENIZERS, name_of
from octavo.text.sentencepiece import Kind, Piece
from octavo.text.tokenizer import Tokenizer
from octavo.text.tokens import GENERATION_ENDS, SpecialTokens, looks_like_control

_GGML = "tokenizer.ggml."
_TEMPLATE, _TEMPLATES = "tokenizer.chat_template", "tokenizer.chat_templates"
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SENTENCEPIECE_DEFAULTS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_GENERATION_TAG = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")


def from_gguf(fields: Mapping[str, Any], where: str) -> Tokenizer:
    """The tokenizer that a GGUF file's metadata describes. Raises CheckpointError that begins with `where`."""
    metadata = _Metadata(fields, where)
    model = metadata.get("model", str)
    pieces = metadata.pieces()
    if model == "gpt2":
        pre = metadata.get("pre", str)
        backend, add_bos = _byte_level(metadata, pieces, pre), PRE_TOKENIZERS[pre].add_bos
    elif model == "llama":
        pre, add_bos = None, True
        prefix = metadata.get("add_space_prefix", bool, True)
        backend = sentencepiece.backend(sentencepiece.Pieces(pieces, prefix), where)
        metadata.defaults = _SENTENCEPIECE_DEFAULTS
    else:
        raise CheckpointError(f"{where}: {_GGML}model is {model!r}, expected gpt2 or llama")
    special = _special_tokens(metadata, backend, metadata.get("add_bos_token", bool, add_bos))
    if special.add_bos and special.bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{special.bos} $A",
            pair=f"{special.bos} $A {special.bos} $B",
            special_tokens=[(special.bos, backend.token_to_id(special.bos))],
        )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special.variables(),
        "add_bos_token": special.add_bos,
        "clean_up_tokenization_spaces": False,
    }
    files = Files(config, special.variables(), metadata.templates(), origin=where)
    return Tokenizer(backend, special, files, pre)


class _Metadata:
    """Typed access to the fields of a file."""

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.defaults: Mapping[str, int] = {}
        self._fields = fields

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self._fields.get(_GGML + key, default)
        if type(value) is not kind:
            got = "nothing" if value is None else type(value).__name__
            raise CheckpointError(f"{self.where}: {_GGML}{key}: expected {kind.__name__}, got {got}")
        return value

    def all(self, key: str, kind: type, default: list[Any] | None = None) -> list[Any]:
        values = self.get(key, list, default)
        if not all(type(value) is kind for value in values):
            raise CheckpointError(f"{self.where}: {_GGML}{key}: expected a list of {kind.__name__} only")
        return values

    def pieces(self) -> list[Piece]:
        texts = self.all("tokens", str)
        kinds = self.all("token_type", int, [Kind.NORMAL.value] * len(texts))
        scores = self.all("scores", float, [0.0] * len(texts))
        if not len(texts) == len(kinds) == len(scores) > 0:
            got = f"{len(texts)}, {len(kinds)} and {len(scores)}"
            raise CheckpointError(f"{self.where}: {_GGML}tokens, token_type and scores: expected as many, got {got}")
        known = {kind.value for kind in Kind}
        return [
            Piece(text, score, Kind(kind) if kind in known and text else Kind.UNUSED)
            for text, score, kind in zip(texts, scores, kinds, strict=True)
        ]

    def token(self, key: str, backend: tokenizers.Tokenizer) -> str | None:
        """Spelling of the token whose id stands under a key."""
        if _GGML + key not in self._fields and key not in self.defaults:
            return None
        id_ = self.get(key, int, self.defaults.get(key))
        token = backend.id_to_token(id_) if 0 <= id_ < 2**32 else None
        if token is None and _GGML + key in self._fields:
            raise CheckpointError(f"{self.where}: {_GGML}{key} is {id_}, which is no token of its vocabulary")
        return token

    def templates(self) -> dict[str, str]:
        """Chat templates by name."""
        prefix = _TEMPLATE + "."
        found = {key[len(prefix) :]: value for key, value in self._fields.items() if key.startswith(prefix)}
        if _TEMPLATE in self._fields:
            found["default"] = self._fields[_TEMPLATE]
        return {name: source for name, source in found.items() if isinstance(source, str) and name.isidentifier()}


def _byte_level(metadata: _Metadata, pieces: Sequence[Piece], pre: str) -> tokenizers.Tokenizer:
    where = metadata.where
    if pre not in PRE_TOKENIZERS:
        raise CheckpointError(f"{where}: {_GGML}pre is {pre!r}, known are {', '.join(PRE_TOKENIZERS)}")
    kind = PRE_TOKENIZERS[pre]
    used = [(id_, piece) for id_, piece in enumerate(pieces) if piece.kind is not Kind.UNUSED]
    ids = {piece.text: id_ for id_, piece in used}
    if len(ids) < len(used):
        twice = next(piece.text for id_, piece in used if ids[piece.text] != id_)
        raise CheckpointError(f"{where}: the token {twice!r} occurs twice in the vocabulary")
    merges = []
    for merge in metadata.all("merges", str):
        space = merge.find(" ", 1)  # the first character may be a space itself
        merges.append((merge[:space], merge[space + 1 :]))
    backend = _shell(kind.normalizer, kind.definition())
    try:
        backend.model = models.BPE(ids, merges, ignore_merges=kind.ignore_merges)
    except Exception as error:  # `tokenizers` raises bare Exception
        raise CheckpointError(f"{where}: {_GGML}merges: {error}") from error
    for _, piece in used:
        if piece.kind is not Kind.NORMAL:
            special = adapted_kind(piece.text, piece.kind in (Kind.CONTROL, Kind.UNKNOWN))
            add = backend.add_special_tokens if special else backend.add_tokens
            add([AddedToken(piece.text, normalized=False, special=special)])
    return backend


def _shell(normalizer: dict[str, Any] | None, pre_tokenizer: dict[str, Any]) -> tokenizers.Tokenizer:
    """A byte-level tokenizer without a vocabulary."""
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    parts = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": decoder, "post_processor": None}
    empty = {"type": "BPE", "vocab": {}, "merges": []}
    return tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": empty, **parts}))


def _special_tokens(metadata: _Metadata, backend: tokenizers.Tokenizer, add_bos: bool) -> SpecialTokens:
    eos, bos = metadata.token("eos_token_id", backend), metadata.token("bos_token_id", backend)
    if eos is None:
        raise CheckpointError(f"{metadata.where}: {_GGML}eos_token_id is missing; expected what ends a completion")
    if add_bos and bos is None:
        raise CheckpointError(f"{metadata.where}: {_GGML}add_bos_token is set without a bos_token_id")
    document = end_of_document(backend, eos)
    control = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    ends = {document, *control.intersection(GENERATION_ENDS), *(metadata.token(key, backend) for key in _ENDS)}
    return SpecialTokens(
        eos=eos,
        end_of_document=document,
        end_ids=frozenset(id_ for end in ends if end and (id_ := backend.token_to_id(end)) is not None),
        bos=bos,
        add_bos=add_bos,
        pad=metadata.token("padding_token_id", backend),
        unk=metadata.token("unknown_token_id", backend),
    )


def to_gguf(tokenizer: Tokenizer, where: str) -> dict[str, Any]:
    """The metadata of a GGUF file from which llama.cpp tokenizes as we do.

    Raises CheckpointError that begins with `where` for a tokenizer that llama.cpp has no name for.
    """
    definition = tokenizer.definition()
    model = definition["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise CheckpointError(f"{where}: GGUF holds BPE tokenizers only, this one is {model['type']}")
    pieces = _pieces(definition)
    vocabulary = (_sentencepiece_fields if model.get("byte_fallback") else _byte_level_fields)(
        tokenizer, definition, pieces, where
    )
    special = tokenizer.special
    ids = {"eos": special.eos, "eot": special.eos, "bos": special.bos, "padding": special.pad, "unknown": special.unk}
    return {
        **vocabulary,
        _GGML + "tokens": [piece.text for piece in pieces],
        _GGML + "token_type": [piece.kind.value for piece in pieces],
        **{f"{_GGML}{key}_token_id": tokenizer.token_id(token) for key, token in ids.items() if token is not None},
        _GGML + "add_bos_token": special.add_bos,
        **_template_fields(tokenizer.files.templates),
    }


def _pieces(definition: Mapping[str, Any]) -> list[Piece]:
    """Tokens in the order of their ids; gaps are filled."""
    model = definition["model"]
    used = {id_: Piece(text, kind=Kind.NORMAL) for text, id_ in model["vocab"].items()}
    if model.get("byte_fallback"):
        used |= {id_: Piece(piece.text, kind=Kind.BYTE) for id_, piece in used.items() if _BYTE.fullmatch(piece.text)}
    for token in definition["added_tokens"]:
        control = token["special"] or looks_like_control(token["content"])
        kind = Kind.CONTROL if control else Kind.USER_DEFINED
        if control and model.get("byte_fallback") and token["content"] == model.get("unk_token"):
            kind = Kind.UNKNOWN
        used[token["id"]] = Piece(token["content"], kind=kind)
    return [used.get(id_, Piece(f"[PAD{id_}]", kind=Kind.UNUSED)) for id_ in range(max(used) + 1)]


def _byte_level_fields(
    tokenizer: Tokenizer, definition: Mapping[str, Any], pieces: Sequence[Piece], where: str
) -> dict[str, Any]:
    pre = tokenizer.gguf_pre or name_of(definition)
    if pre is None:
        raise CheckpointError(
            f"{where}: llama.cpp has no name for the way in which this tokenizer splits text (normalizer and "
            f"pre-tokenizer in tokenizer.json), so it cannot be exported; known are {', '.join(PRE_TOKENIZERS)}"
        )
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in definition["model"]["merges"]]
    return {_GGML + "model": "gpt2", _GGML + "pre": pre, _GGML + "merges": merges}


def _sentencepiece_fields(
    tokenizer: Tokenizer, definition: Mapping[str, Any], pieces: Sequence[Piece], where: str
) -> dict[str, Any]:
    normalizer, pre_tokenizer = definition.get("normalizer") or {}, definition.get("pre_tokenizer") or {}
    steps = [step["type"] for step in normalizer.get("normalizers", [normalizer] if normalizer else [])]
    if not set(steps) <= {"Prepend", "Replace"} or pre_tokenizer.get("type", "Metaspace") != "Metaspace":
        raise CheckpointError(f"{where}: llama.cpp normalizes text otherwise than this tokenizer ({', '.join(steps)})")
    # The order of merges as scores: a piece is as good as the first merge that makes it is early.
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(definition["model"]["merges"]):
        ranks.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), rank)
    worst = -float(len(ranks) + len(definition["model"]["merges"]))
    scores = [float(-ranks[p.text]) if p.text in ranks else worst if p.kind is Kind.NORMAL else 0.0 for p in pieces]
    prefix = "Prepend" in steps or pre_tokenizer.get("prepend_scheme", "never") != "never"
    return {
        _GGML + "model": "llama",
        _GGML + "pre": "default",
        _GGML + "scores": scores,
        _GGML + "add_space_prefix": prefix,
    }


def _template_fields(templates: Mapping[str, str]) -> dict[str, Any]:
    """Chat templates without `{% generation %}`, which not every reader of GGUF files knows."""
    plain = {name: _GENERATION_TAG.sub(r"{#\1 \2#}", source) for name, source in templates.items()}
    more = {f"{_TEMPLATE}.{name}": source for name, source in plain.items() if name != "default"}
    default = {_TEMPLATE: plain["default"]} if "default" in plain else {}
    return {**default, **more, **({_TEMPLATES: sorted(set(plain) - {"default"})} if more else {})}
