"""Tokens to text, piece by piece, with stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from pulse_edge.text.tokenizer import Tokenizer


class TextStream:
    """Token ids -> text, piece by piece. The pieces joined are exactly the final text.

    No piece is ever taken back. Bytes wait until they make a whole character, the possible
    beginning of a stop string waits until it is decided, and white space waits for what follows it,
    because the final text is stripped, as upstream's is. After a stop string `stopped` is true, and
    the text ends before it.
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
        end = _first_of(self._stop, self._held)
        if end is not None:
            self.stopped = True
            self._held = self._held[:end]
            return self._emit(len(self._held))
        return self._emit(len(self._held) - self._undecided())

    def finish(self) -> str:
        """The text that still waits at the end of generation."""
        if not self.stopped:
            self._held += self._decoder.decode(b"", final=True)
            self._held = self._held[: _first_of(self._stop, self._held)]
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


def before_stop(
    tokenizer: Tokenizer, tokens: Sequence[int], stop: Sequence[str]
) -> tuple[list[int], str]:
    """Cut an answer's tokens where `TextStream` cuts its text.

    Args:
        tokenizer: of the tokens.
        tokens: of an answer, up to the one with which it ended.
        stop: its stop strings.

    Returns:
        The tokens that lie wholly before the stop string and the white space before it, and the
        text between them and it. All tokens and no text if there is no stop string.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = ""
    borders = [(0, 0)]  # (tokens, characters) where no character is incomplete
    reach = max(map(len, stop), default=1) - 1  # characters before a token that a stop may begin in
    pieces = (tokenizer.piece_bytes(token) for token in tokens)
    for count, piece in enumerate((*pieces, b""), 1):
        old = len(text)
        text += decoder.decode(piece, final=count > len(tokens))
        stop_at = _first_of(stop, text, max(0, old - reach))
        if stop_at is not None:
            end = len(text[:stop_at].rstrip())
            kept, characters = max(border for border in borders if border[1] <= end)
            return list(tokens[:kept]), text[characters:end]
        if not decoder.getstate()[0]:
            borders.append((count, len(text)))
    return list(tokens), ""


def _first_of(stop: Iterable[str], text: str, start: int = 0) -> int | None:
    """Where the first stop string in a text begins, looking from `start`; None without one."""
    places = (text.find(string, start) for string in stop)
    return min((place for place in places if place >= 0), default=None)
