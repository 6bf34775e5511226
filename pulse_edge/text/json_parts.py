"""The parts of a tokenizer.json that change or cut a text, or put tokens around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pulse_edge.errors import BundleError
from pulse_edge.text.tokenizer import SPACE

LONGEST_PATTERN = 2000  # characters of a regular expression; Qwen2's has 120
DEEPEST = 3  # sequences in each other
MOST_PARTS = 8  # of a sequence; Qwen2's has 2
_REPEATED_GROUP = re.compile(r"\)[*+{]")  # what backtracks without end does so in one
# Those of tokenizers that spell every text. Others change or drop characters, or panic.
NORMALIZERS = ("Sequence", "NFC", "Prepend", "Replace")
PRE_TOKENIZERS = ("Sequence", "Split", "ByteLevel", "Digits", "Metaspace")
BEHAVIORS = ("Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")  # of a split


# How SentencePiece's tokens spell spaces.
_SPACES: dict[str, dict[str, Any]] = {
    "Prepend": {"prepend": SPACE},
    "Replace": {"pattern": {"String": " "}, "content": SPACE},
}


@dataclass(frozen=True)
class TextFrame:
    """Ids that a file puts before and behind a text."""

    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


class Problem:
    """Makes the error of a file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, reason: str) -> BundleError:
        line = " ".join(reason.split())[:300]
        return BundleError(f"{self._name}: not a tokenizer ({line}); get the file again")


def check_parts(stored: dict[str, Any], problem: Problem) -> None:
    """Refuse a tokenizer with a part that is not known to spell every text.

    Args:
        stored: the file.
        problem: makes the error.

    Raises:
        BundleError: it has one. The message names it.
    """
    for part in _sequenced(stored.get("normalizer"), "normalizers", problem):
        _check_type(part, "normalizer", NORMALIZERS, problem)
        for key, value in _SPACES.get(part["type"], {}).items():
            if part.get(key) != value:
                raise problem(f"a {part['type']} normalizer whose {key} is {part.get(key)!r:.40}")
    cuts = list(_sequenced(stored.get("pre_tokenizer"), "pretokenizers", problem))
    for part in cuts:
        _check_type(part, "pre_tokenizer", PRE_TOKENIZERS, problem)
        if part["type"] == "Split":
            _check_split(part, problem)
    # Each doubles what is no ASCII: some dozens of them take all memory.
    if sum(part["type"] == "ByteLevel" for part in cuts) > 1:
        raise problem("more than one ByteLevel pre_tokenizer")


def _check_type(part: dict[str, Any], what: str, legal: tuple[str, ...], problem: Problem) -> None:
    if part.get("type") not in legal:
        raise problem(
            f"a {what} of type {part.get('type')!r:.40}, supported are {', '.join(legal)}"
        )


def _check_split(part: dict[str, Any], problem: Problem) -> None:
    pattern = part.get("pattern")
    texts = list(pattern.values()) if isinstance(pattern, dict) else []
    if len(texts) != 1 or not isinstance(texts[0], str) or not texts[0]:
        raise problem(f"a split by the pattern {pattern!r:.40}")
    if len(texts[0]) > LONGEST_PATTERN:
        raise problem(f"a pattern of over {LONGEST_PATTERN} characters")
    if _REPEATED_GROUP.search(texts[0]):
        raise problem(f"a pattern that repeats a group, which may take for ever: {texts[0]!r:.40}")
    if part.get("behavior") not in BEHAVIORS:
        raise problem(f"a split that is {part.get('behavior')!r:.40}, which drops text")


def _sequenced(value: Any, key: str, problem: Problem, depth: int = 0) -> Iterator[dict[str, Any]]:
    """A part, or those of a sequence."""
    if value is None:
        return
    if not isinstance(value, dict) or depth > DEEPEST:
        raise problem(f"{key} that are no parts, or too deep in each other")
    if value.get("type") != "Sequence":
        yield value
        return
    inner = value.get(key)
    if not isinstance(inner, list) or len(inner) > MOST_PARTS:
        raise problem(f"a sequence without {key}, or with over {MOST_PARTS}")
    for part in inner:
        yield from _sequenced(part, key, problem, depth + 1)


def read_text_frame(value: Any, problem: Problem) -> TextFrame:
    """What a file's post_processor puts around a single text.

    Args:
        value: the post_processor.
        problem: makes the error.

    Raises:
        BundleError: it is none, or of a kind that language models do not have.
    """
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    for part in _sequenced(value, "processors", problem):
        if part.get("type") == "ByteLevel":  # about places in the text
            continue
        if part.get("type") != "TemplateProcessing":
            raise problem(f"a post_processor of type {part.get('type')!r:.40}")
        left, right = _template(part, problem)
        before, behind = (*left, *before), (*behind, *right)
    return TextFrame(before, behind)


def _template(part: dict[str, Any], problem: Problem) -> tuple[list[int], list[int]]:
    """Ids of the special tokens on either side of the text."""
    sides: tuple[list[int], list[int]] = ([], [])
    texts = 0
    for piece in part["single"] if isinstance(part.get("single"), list) else []:
        special = piece.get("SpecialToken") if isinstance(piece, dict) else None
        if special is None:
            texts += 1
            continue
        try:
            ids = part["special_tokens"][special["id"]]["ids"]
            known = all(type(token) is int for token in ids)
        except (KeyError, TypeError):
            known = False
        if not known:
            raise problem(f"a post_processor with the unknown token {special!r:.40}")
        sides[min(texts, 1)].extend(ids)
    if texts != 1:
        raise problem(f"a post_processor with {texts} texts in place of one")
    return sides
