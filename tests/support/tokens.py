"""The golden tokenizer, and strategies for text that it must keep."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from pulse_edge.text.tokenizer import Tokenizer

from support.paths import GOLDENS

MODEL = GOLDENS / "tokenizer.model"
TOKENS = Tokenizer(MODEL, legacy=False)
LEGACY = Tokenizer(MODEL, legacy=True)
BOS, EOS, BYTE = 1, 2, 3  # byte tokens <0x00>… start at 3

# SentencePiece spells a space as U+2581. A U+2581 of the text therefore comes back as a space, in
# upstream too.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"))


def byte_tokens(data: bytes) -> list[int]:
    return [BYTE + b for b in data]


def raw(tokens: Sequence[int]) -> bytes:
    return b"".join(map(TOKENS.piece_bytes, tokens))
