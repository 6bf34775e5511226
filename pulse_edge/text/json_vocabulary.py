"""What a tokenizer.json says about its tokens, checked before the library sees the file.

The library panics at some legal files, and prints where. So it gets only parts that are known, and
nothing that it would frame, cut or pad a text by.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pulse_edge.text.json_parts import Problem, TextFrame, check_parts, read_text_frame

LARGEST_FILE = 1 << 26  # bytes; Qwen2's has 7 million
LARGEST_TOKEN = 1 << 20  # as a model's vocabulary may have
UNFRAMED = dict.fromkeys(("post_processor", "truncation", "padding"))


@dataclass(frozen=True)
class AddedToken:
    """A token besides the model's own.

    Attributes:
        strips: whether it swallows white space around it.
    """

    id: int
    content: str
    special: bool
    strips: bool


@dataclass(frozen=True)
class JsonVocabulary:
    """Tokens by id.

    Attributes:
        pieces: as the file spells them; None for an id between others that is no token's.
        special: whether a token is special, or none.
        added: the tokens besides the model's own, by id.
        byte_level: whether letters stand for bytes.
        frame: what the file itself puts around a text.
        text: what the library is to read.
    """

    pieces: tuple[str | None, ...]
    special: tuple[bool, ...]
    added: dict[int, AddedToken]
    byte_level: bool
    frame: TextFrame
    text: str

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens, by their text."""
        return {token.content: token.id for token in self.added.values() if token.special}


def read_vocabulary(content: bytes, name: str) -> JsonVocabulary:
    """Read and check a tokenizer.json.

    Args:
        content: the file's bytes.
        name: what messages call the file.

    Raises:
        BundleError: it is too large, damaged, or of a kind that cannot spell every text. The
            message says which.
    """
    problem = Problem(name)
    stored = _parsed_file(content, problem)
    model: dict[str, Any] = stored["model"]
    _check_byte_pairs(model, problem)
    check_parts(stored, problem)
    byte_level = _is_byte_level(stored, problem)
    words = _model_pieces(model.get("vocab"), problem)
    added = _added(stored.get("added_tokens"), problem)
    for token in added.values():
        if words.setdefault(token.id, token.content) != token.content:
            raise problem(f"token {token.id} is both {words[token.id]!r:.40} and an added one")
    size = max(words, default=-1) + 1
    special = [at not in words or (at in added and added[at].special) for at in range(size)]
    if not byte_level and model.get("unk_token") in words.values():
        unknown = next(at for at, word in words.items() if word == model["unk_token"])
        special[unknown] = True
    return JsonVocabulary(
        pieces=tuple(words.get(at) for at in range(size)),
        special=tuple(special),
        added=added,
        byte_level=byte_level,
        frame=read_text_frame(stored.get("post_processor"), problem),
        text=json.dumps(stored | UNFRAMED, ensure_ascii=False),
    )


def _parsed_file(content: bytes, problem: Problem) -> dict[str, Any]:
    """The file's object, which has a model."""
    if len(content) > LARGEST_FILE:
        raise problem(f"over {LARGEST_FILE} bytes")
    try:
        stored = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise problem(str(error)) from None
    if not isinstance(stored, dict) or not isinstance(stored.get("model"), dict):
        raise problem("no object with a model")
    return stored


def _is_byte_level(stored: dict[str, Any], problem: Problem) -> bool:
    """Whether letters stand for bytes, and not SentencePiece's tokens."""
    kinds = {
        key: [part.get("type") for part in _typed_parts(stored.get(key))]
        for key in ("decoder", "pre_tokenizer")
    }
    if "ByteLevel" not in kinds["decoder"]:
        if not stored["model"].get("byte_fallback"):
            raise problem("neither byte-level tokens nor byte_fallback, so some text has no tokens")
        return False
    if "ByteLevel" not in kinds["pre_tokenizer"]:
        raise problem("a ByteLevel decoder without a ByteLevel pre_tokenizer")
    return True


def _check_byte_pairs(model: dict[str, Any], problem: Problem) -> None:
    kind = model.get("type", "BPE")
    if kind != "BPE":
        raise problem(f"a model of type {kind!r:.40}, supported is 'BPE'")
    if model.get("dropout"):
        raise problem("dropout, which gives a text other tokens each time")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise problem(f"{key} {model[key]!r:.40}, which is part of no text")


def _typed_parts(value: Any) -> Iterator[dict[str, Any]]:
    """An object with a type, and those in it. `json.loads` has bounded the depth."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _typed_parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _typed_parts(inner)


def _model_pieces(vocabulary: Any, problem: Problem) -> dict[int, str]:
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise problem("no vocab")
    words: dict[int, str] = {}
    for piece, token in vocabulary.items():
        _check_id(token, problem)
        _check_characters(piece, problem)
        if words.setdefault(token, piece) != piece:
            raise problem(f"token {token} is both {words[token]!r:.40} and {piece!r:.40}")
    return words


def _added(entries: Any, problem: Problem) -> dict[int, AddedToken]:
    added: dict[int, AddedToken] = {}
    if entries is not None and not isinstance(entries, list):
        raise problem("added_tokens is no list")
    for entry in entries or []:
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or not content:
            raise problem(f"an added token {entry!r:.40} without content")
        _check_id(entry.get("id"), problem)
        _check_characters(content, problem)
        if entry["id"] in added:
            raise problem(f"token {entry['id']} is added twice")
        strips = bool(entry.get("lstrip") or entry.get("rstrip"))
        added[entry["id"]] = AddedToken(entry["id"], content, entry.get("special") is True, strips)
    return added


def _check_id(token: Any, problem: Problem) -> None:
    if type(token) is not int or not 0 <= token < LARGEST_TOKEN:
        raise problem(f"a token with the id {token!r:.40}")


def _check_characters(piece: str, problem: Problem) -> None:
    try:
        piece.encode()
    except UnicodeEncodeError:
        raise problem(f"a token that holds half a character: {piece!r:.40}") from None
