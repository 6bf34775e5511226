"""A tokenizer.json of byte-pair tokens, through the package `tokenizers`.

Two kinds spell any text: byte-level tokens, as Qwen's, whose letters stand for bytes (GPT-2's
table), and SentencePiece's in another file, with a token for each byte and U+2581 for a space.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pulse_edge.errors import BundleError, ParameterError
from pulse_edge.text.json_vocabulary import AddedToken, JsonVocabulary, read_vocabulary
from pulse_edge.text.tokenizer import BYTES, SHAPES, SPACE, Tokenizer, native_code

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

SUFFIX = ".json"  # of the file's name
INSTALL = "tokenizer.json needs the package tokenizers; run pip install 'pulse-edge[tokenizers]'"


def byte_letters() -> dict[str, int]:
    """The letter of each byte in byte-level tokens.

    Printable bytes of Latin-1 stand for themselves, the others for letters from U+0100 on. Source:
    openai/gpt-2 encoder.py `bytes_to_unicode`.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(BYTES) if byte not in printable]
    letters = {chr(byte): byte for byte in sorted(printable)}
    return letters | {chr(BYTES + at): byte for at, byte in enumerate(others)}


class JsonTokenizer(Tokenizer):
    """A tokenizer.json. Special tokens never come from text: only their ids give them.

    Args:
        content: the file's bytes.
        legacy: see `PromptSpec.legacy`; without effect on byte-level tokens.
        name: what messages call the file.

    Raises:
        BundleError: it is not such a tokenizer, or `tokenizers` is not installed.
    """

    def __init__(self, content: bytes, legacy: bool, name: str = "tokenizer.json") -> None:
        self._name = name
        self._vocabulary: JsonVocabulary = read_vocabulary(content, name)
        self._library = self._opened()
        self._library.encode_special_tokens = True  # as text
        self.size: int = len(self._vocabulary.pieces)
        self.legacy = legacy
        self._tokens = list(self._all_bytes())

    def _opened(self) -> Library:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            raise BundleError(f"{self._name}: {INSTALL}") from None
        with native_code():
            try:
                library = Library.from_str(self._vocabulary.text)
                self._check_ids(library)
            except (KeyboardInterrupt, SystemExit, MemoryError, BundleError):
                raise
            except BaseException as error:  # a panic in its code is no Exception
                reason = " ".join(str(error).split())[:200]
                raise BundleError(
                    f"{self._name}: not a tokenizer ({reason}); get the file again"
                ) from None
        return library

    def _check_ids(self, library: Library) -> None:
        """The library numbers added tokens itself, whatever the file says."""
        for token in self._vocabulary.added.values():
            if library.token_to_id(token.content) != token.id:
                raise BundleError(
                    f"{self._name}: not a tokenizer (added token {token.content!r:.40} says "
                    f"{token.id}, and would be {library.token_to_id(token.content)}); "
                    "get the file again"
                )

    def _all_bytes(self) -> Iterator[bytes]:
        """The text of each token, in UTF-8."""
        words = self._vocabulary
        letters = byte_letters()
        for token, piece in enumerate(words.pieces):
            if piece is None or words.special[token]:
                yield b""
            elif token in words.added:
                yield piece.encode()
            elif words.byte_level:
                known = all(map(letters.__contains__, piece))
                yield bytes(map(letters.__getitem__, piece)) if known else piece.encode()
            elif (byte := _byte_of(piece)) is not None:
                yield bytes([byte])
            else:
                yield piece.replace(SPACE, " ").encode()

    @property
    def bos(self) -> int:
        """-1: the file does not say."""
        return -1

    @property
    def eos(self) -> int:
        """-1: the file does not say."""
        return -1

    @property
    def added(self) -> tuple[AddedToken, ...]:
        """The tokens besides the model's own."""
        return tuple(self._vocabulary.added.values())

    @property
    def byte_level(self) -> bool:
        """Whether letters stand for bytes, so that no text gets a dummy space."""
        return self._vocabulary.byte_level

    def token(self, piece: str) -> int | None:
        """Id of the special token that is written so; None if there is none."""
        return self._vocabulary.special_ids.get(piece)

    def piece(self, token: int) -> str:
        """A token as the file spells it; "" for an id that it does not have."""
        return self._vocabulary.pieces[token] or ""

    def is_special(self, token: int) -> bool:
        """Whether a token is special or absent: it never comes from text and has none."""
        return self._vocabulary.special[token]

    def piece_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of a token: perhaps part of a character; none for special tokens."""
        return self._tokens[token] if 0 <= token < self.size else b""

    @property
    def numbers(self) -> frozenset[int]:
        """Ids of the tokens that are digits and nothing else."""
        texts = enumerate(text.decode(errors="replace") for text in self._tokens)
        return frozenset(token for token, text in texts if text.replace(" ", "").isdecimal())

    @property
    def byte_tokens(self) -> list[int]:
        """Ids of the tokens that are one byte each, by byte. There must be no `departure`."""
        found = self._single_bytes()
        return [found[byte] for byte in range(BYTES)]

    def _single_bytes(self) -> dict[int, int]:
        single: dict[int, int] = {}
        for token, text in enumerate(self._tokens):
            piece = self._vocabulary.pieces[token]
            if len(text) == 1 and (self.byte_level or _byte_of(piece or "") is not None):
                single.setdefault(text[0], token)
        return single

    def encode(self, text: str) -> list[int]:
        """Ids of text that starts a chunk."""
        with native_code():
            try:
                text.encode()  # older versions replace half a character
                return list(self._library.encode(text, add_special_tokens=False).ids)
            except (KeyboardInterrupt, SystemExit, MemoryError):
                raise
            except BaseException as error:  # a panic in its code is no Exception
                reason = " ".join(str(error).split())[:200]
                raise ParameterError(f"the tokenizer cannot read this text ({reason})") from None

    def encode_after_special(self, text: str) -> list[int]:
        """Ids of text that follows a special token."""
        if self.byte_level or self.legacy:
            return self.encode(text)
        return self.encode_spelled(text)

    def encode_spelled(self, text: str) -> list[int]:
        """Ids that spell exactly `text`, without a dummy space."""
        if self.byte_level:
            return self.encode(text)
        guard = self.encode("\n")
        return self.encode("\n" + text)[len(guard) :]

    def framed(self) -> tuple[list[int], list[int]]:
        """Ids that the file itself puts before and after a text."""
        return list(self._vocabulary.frame.before), list(self._vocabulary.frame.behind)

    def spaces_after_special(self, token: int) -> bool:
        """Whether the library puts a dummy space before text behind this special token."""
        library = self._opened()
        with native_code():
            ids = list(library.encode(f"{self.piece(token)}a", add_special_tokens=False).ids)
        return self._raw(ids[1:]) == b" a"

    def departure(self) -> str | None:
        """See `Tokenizer.departure`. Byte-level tokens have no dummy space."""
        if len(self._single_bytes()) < BYTES:
            return "it has no token for each byte (byte_fallback)"
        dummy = b"" if self.byte_level else b" "
        if self._raw(self.encode("a")) != dummy + b"a":
            space = "a" if self.byte_level else "no"
            return f"it puts {space} space before a text (add_prefix_space)"
        # Some put their dummy space only before a text that begins with none.
        if self._raw(self.encode("  a  b ")) not in (dummy + b"  a  b ", b"  a  b "):
            return "it drops spaces"
        # Qwen's composes letters and their accents (NFC), which is the same text.
        legal = (SHAPES, unicodedata.normalize("NFC", SHAPES))
        if self._raw(self.encode(SHAPES)) not in [dummy + shapes.encode() for shapes in legal]:
            return "it changes characters (normalizer)"
        if not self.byte_level:
            guard = self.encode("\n")
            texts = ("a", " a", "\n", "USER", "[INST]")
            if any(self.encode("\n" + text)[: len(guard)] != guard for text in texts):
                return "it merges line breaks with other text"
        return None

    def _raw(self, tokens: list[int]) -> bytes:
        return b"".join(map(self.piece_bytes, tokens))


def _byte_of(piece: str) -> int | None:
    """The byte that `<0xE2>` spells."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        try:
            return int(piece[3:5], 16)
        except ValueError:
            return None
    return None
