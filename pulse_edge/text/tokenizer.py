"""Llama's tokenizer, with the quirks of Hugging Face's slow one."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

import sentencepiece

from pulse_edge.errors import BundleError

LARGEST_MODEL = 1 << 26  # bytes; Llama's has half a megabyte
SPACE = "\u2581"  # how SentencePiece spells a space
BYTES = 256
# Text that a normalizing tokenizer changes: ligature, fraction, wide letter, wide space, accents.
SHAPES = "\ufb01 \u00bd \uff25\u3000e\u0301 \u00c5"

# Held in SentencePiece's code, which lets other threads run meanwhile. At exit the main thread
# takes it for good: a daemon thread that came back from there after that would abort the process.
_native = threading.RLock()
atexit.register(_native.acquire)


def native_code() -> threading.RLock:
    """Held while a tokenizer's library runs."""
    return _native


def _renew() -> None:
    """In a forked child, whose parent may have held the lock in another thread."""
    global _native
    _native = threading.RLock()
    atexit.register(_native.acquire)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class Tokenizer:
    """SentencePiece with the Llama tokenizer's conventions. `JsonTokenizer` is another library's.

    Args:
        model: the SentencePiece model: its file, or its bytes.
        legacy: see `PromptSpec.legacy`.
        name: what messages call the model; None: the file's path.

    Raises:
        BundleError: it is not a SentencePiece model, or has pieces that are no text.
    """

    def __init__(self, model: Path | bytes, legacy: bool, name: str | None = None) -> None:
        self._name = name or (str(model) if isinstance(model, Path) else "tokenizer.model")
        content = self._read(model) if isinstance(model, Path) else model
        if not content:  # the library takes it for no model at all, and only logs that
            raise self._not_a_model("empty")
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_proto=content)
            self.size: int = self._sp.get_piece_size()
            # All at once: a piece that is not UTF-8 would fail in the middle of an answer.
            ids = list(range(self.size))
            self._pieces: list[str] = self._sp.id_to_piece(ids)
            self._bytes: list[bool] = self._sp.is_byte(ids)
            control, unknown = self._sp.is_control(ids), self._sp.is_unknown(ids)
            self._special = [any(pair) for pair in zip(control, unknown, strict=True)]
        except UnicodeDecodeError:
            raise self._not_a_model("pieces that are not UTF-8") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise self._not_a_model(str(error)) from None
        self.legacy = legacy

    def _read(self, path: Path) -> bytes:
        try:
            if path.exists() and not path.is_file():
                raise self._not_a_model("not a file")
            if path.stat().st_size > LARGEST_MODEL:
                raise self._not_a_model(f"over {LARGEST_MODEL} bytes")
            return path.read_bytes()
        except OSError as error:
            raise self._not_a_model(str(error.strerror)) from None

    def _not_a_model(self, reason: str) -> BundleError:
        return BundleError(
            f"{self._name}: not a SentencePiece model ({' '.join(reason.split())}); "
            "get the file again"
        )

    @property
    def bos(self) -> int:
        """Id of the token that begins a text; -1 if there is none."""
        token: int = self._sp.bos_id()
        return token

    @property
    def eos(self) -> int:
        """Id of the token that ends a text; -1 if there is none."""
        token: int = self._sp.eos_id()
        return token

    def piece(self, token: int) -> str:
        """A token as the model spells it: a space is U+2581, a byte `<0x0A>`."""
        return self._pieces[token]

    def is_special(self, token: int) -> bool:
        """Whether a token is control or unknown: it never comes from text and has none."""
        return self._special[token]

    def departure(self) -> str | None:
        """How the model departs from the conventions of Llama's; None if it does not.

        It would give other ids for the same prompt, or lose text.
        """
        spelled = [f"<0x{byte:02X}>" for byte in range(BYTES)]
        bytes_ = {piece for piece, byte in zip(self._pieces, self._bytes, strict=True) if byte}
        if not bytes_.issuperset(spelled):
            return "it has no token for each byte (byte_fallback)"
        if self._raw(self.encode("a")) != b" a":
            return "it puts no space before a text (add_dummy_prefix)"
        if self._raw(self.encode("  a  b ")) != b"   a  b ":
            return "it drops spaces (remove_extra_whitespaces)"
        if self._raw(self.encode(SHAPES)) != f" {SHAPES}".encode():
            return "it changes characters (normalization_rule_name)"
        guard = self.encode("\n")
        for text in ("a", " a", "\n", "USER"):
            if self.encode("\n" + text)[: len(guard)] != guard:
                return "it merges line breaks with other text"
        return None

    def _raw(self, tokens: list[int]) -> bytes:
        return b"".join(map(self.piece_bytes, tokens))

    def encode(self, text: str) -> list[int]:
        """Ids of text that starts a chunk; SentencePiece puts a dummy space before it."""
        with _native:
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

    def encode_spelled(self, text: str) -> list[int]:
        """Ids that spell exactly `text`, without a dummy space: see `encode_after_special`."""
        guard = self.encode("\n")
        return self.encode("\n" + text)[len(guard) :]

    @property
    def byte_tokens(self) -> list[int]:
        """Ids of the tokens that are one byte each, by byte. There must be no `departure`."""
        pieces = {piece: token for token, piece in enumerate(self._pieces)}
        return [pieces[f"<0x{byte:02X}>"] for byte in range(BYTES)]

    @property
    def numbers(self) -> frozenset[int]:
        """Ids of the tokens that are digits and nothing else."""
        return frozenset(
            i for i, piece in enumerate(self._pieces) if piece.replace(SPACE, "").isdecimal()
        )

    def piece_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of a token: perhaps part of a character; none for control tokens."""
        if not 0 <= token < self.size or self.is_special(token):
            return b""
        piece = self._pieces[token]
        if self._bytes[token]:  # "<0xE2>"
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode()
