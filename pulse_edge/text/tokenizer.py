"""Llama's tokenizer, with the quirks of Hugging Face's slow one."""

from __future__ import annotations

from pathlib import Path

import sentencepiece

from pulse_edge.errors import BundleError


class Tokenizer:
    """SentencePiece with the Llama tokenizer's conventions.

    Args:
        path: the SentencePiece model.
        legacy: see `PromptSpec.legacy`.

    Raises:
        BundleError: the file is not a SentencePiece model.
    """

    def __init__(self, path: Path, legacy: bool) -> None:
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise BundleError(f"{path}: not a SentencePiece model ({error})") from None
        self.legacy = legacy
        self.size: int = self._sp.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Ids of text that starts a chunk; SentencePiece puts a dummy space before it."""
        return list(self._sp.encode(text))

    def encode_after_special(self, text: str) -> list[int]:
        """Ids of text that follows a special token such as `</s>`."""
        if self.legacy:
            return self.encode(text)
        # SentencePiece puts its dummy space at the very front. Put a newline there, which Llama
        # spells in byte tokens and which merges with nothing, and cut both off again.
        guard = self.encode("\n")
        ids = self.encode("\n" + text)
        assert ids[: len(guard)] == guard, "in a Llama tokenizer a newline merges with nothing"
        return ids[len(guard) :]

    @property
    def numbers(self) -> frozenset[int]:
        """Ids of the tokens that are digits and nothing else."""
        pieces = self._sp.id_to_piece(list(range(self.size)))
        return frozenset(
            i for i, piece in enumerate(pieces) if piece.replace("\u2581", "").isdecimal()
        )

    def piece_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of a token: perhaps part of a character; none for control tokens."""
        if not 0 <= token < self.size:
            return b""
        if self._sp.is_control(token) or self._sp.is_unknown(token):
            return b""
        piece: str = self._sp.id_to_piece(token)
        if self._sp.is_byte(token):  # "<0xE2>"
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()
