"""Question -> token ids around the image slot, and token ids -> text as it grows.

Template and tokenising follow LLaVA: `conv_llava_v1` (llava/conversation.py, SeparatorStyle.TWO) and
`tokenizer_image_token` (llava/mm_utils.py), which encodes the text on either side of the image on its own.
Text never becomes a control token: a literal "</s>" or "<image>" in a question stays characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from .bundle import PromptSpec
from .errors import BundleError, ParameterError

IMAGE = -200  # stands for the image's tokens in a list of ids (llava/constants.py IMAGE_TOKEN_INDEX)


class Tokenizer:
    """SentencePiece with the Llama tokenizer's conventions."""

    def __init__(self, path: Path, legacy: bool) -> None:
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise BundleError(f"{path}: not a SentencePiece model ({error})") from None
        self.legacy = legacy
        self.size: int = self._sp.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Ids of a stretch of text that starts a chunk (gets the dummy space)."""
        return list(self._sp.encode(text))

    def encode_after_special(self, text: str) -> list[int]:
        """Ids of a stretch of text that follows a special token such as `</s>`."""
        if self.legacy:
            return self.encode(text)
        # SentencePiece puts its dummy space at the very front: put something else there that merges with nothing
        # (a newline, which Llama spells in byte tokens), and cut it off again.
        guard, ids = self.encode("\n"), self.encode("\n" + text)
        assert ids[: len(guard)] == guard, "a tokenizer whose newline merges with letters is no Llama tokenizer"
        return ids[len(guard) :]

    @property
    def numbers(self) -> frozenset[int]:
        """Ids of the tokens that are digits and nothing else."""
        pieces = self._sp.id_to_piece(list(range(self.size)))
        return frozenset(i for i, piece in enumerate(pieces) if piece.replace("\u2581", "").isdecimal())

    def piece_bytes(self, token: int) -> bytes:
        """UTF-8 bytes a token stands for: maybe part of a character; none for control tokens."""
        if not 0 <= token < self.size or self._sp.is_control(token) or self._sp.is_unknown(token):
            return b""
        piece: str = self._sp.id_to_piece(token)
        if self._sp.is_byte(token):  # "<0xE2>"
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()


class PromptBuilder:
    """The conversation template over a tokenizer; lists of ids hold `IMAGE` where the image's tokens go."""

    def __init__(self, spec: PromptSpec, tokenizer: Tokenizer, bos: int, eos: int) -> None:
        self._spec, self._tokenizer, self._bos, self._eos = spec, tokenizer, bos, eos

    def first_turn(self, question: str, image: bool = True) -> list[int]:
        """`{system} USER: <image>\\n{question} ASSISTANT:`"""
        spec, encode = self._spec, self._tokenizer.encode
        head, tail = f"{spec.system} {spec.user}: ", f"{_checked(question)} {spec.assistant}:"
        if image:
            return [self._bos, *encode(head), IMAGE, *encode("\n" + tail)]
        return [self._bos, *encode(head + tail)]

    def next_turn(self, question: str) -> list[int]:
        """`</s>USER: {question} ASSISTANT:`, to follow an answer's own ids."""
        return [self._eos, *self._tokenizer.encode_after_special(self.turn_text(_checked(question)))]

    def turn_text(self, question: str) -> str:
        return f"{self._spec.user}: {question} {self._spec.assistant}:"

    def text(self, question: str, image: bool = True) -> str:
        """The first turn as text, for people and for provenance."""
        slot = "<image>\n" if image else ""
        return f"{self._spec.system} {self._spec.user}: {slot}{question} {self._spec.assistant}:"


def _checked(question: str) -> str:
    if not isinstance(question, str):
        raise ParameterError(f"a question is a string, not {type(question).__name__}")
    if not question.strip():
        raise ParameterError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise ParameterError(f"the question is not valid Unicode text ({error.reason})") from None
    return question


class TextStream:
    """Token ids -> text, piece by piece, so that the pieces joined are exactly the final text.

    Nothing is emitted that might be taken back: bytes wait until they make a whole character, a possible beginning
    of a stop string waits until it is decided, white space waits for what follows it (the final text is stripped, as
    upstream's is). After a stop string is seen, `stopped` is true and the text ends before it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._bytes_of = tokenizer.piece_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop = tuple(stop)
        self._held = ""
        self._begun = False
        self.stopped = False

    def push(self, token: int) -> str:
        """Text that became certain with this token, often empty."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(self._bytes_of(token))
        found = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
        if found:
            self.stopped = True
            self._held = self._held[: min(found)]
            return self._emit(len(self._held))
        return self._emit(len(self._held) - self._undecided())

    def finish(self) -> str:
        """What still waited, at the end of generation."""
        if not self.stopped:
            self._held += self._decoder.decode(b"", final=True)
            found = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
            self._held = self._held[: min(found, default=len(self._held))]
        return self._emit(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-length:]) for s in self._stop):
                return length
        return 0

    def _emit(self, end: int) -> str:
        ready = self._held[:end]
        if not self._begun:
            ready = ready.lstrip()
        kept = ready.rstrip()
        if not kept:
            return ""
        self._begun = True
        self._held = ready[len(kept) :] + self._held[end:]
        return kept


def decode(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """Ids -> text at once."""
    stream = TextStream(tokenizer)
    return "".join([stream.push(t) for t in tokens]) + stream.finish()
