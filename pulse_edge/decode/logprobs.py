"""Log-probabilities of tokens, under the model's own distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats
from pulse_edge.text.tokenizer import Tokenizer

# Stands for the log-probability of what the model rules out, as in OpenAI's interface: JSON has no
# infinity.
IMPOSSIBLE = -9999.0


@dataclass(frozen=True)
class TopToken:
    """One of the likeliest tokens at a place.

    Args:
        token: id.
        text: the token's bytes as text; U+FFFD replaces what is no UTF-8, such as a part of a
            character.
        bytes: the token's bytes; none for a token that has no text.
        logprob: natural logarithm of its probability.
    """

    token: int
    text: str
    bytes: tuple[int, ...]
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token, with the likeliest tokens at its place.

    Args:
        token: id.
        text: see `TopToken`.
        bytes: see `TopToken`.
        logprob: natural logarithm of its probability.
        top: as many as were asked for, the likeliest first, of equals the lower id. The generated
            token is among them only if it is that likely.
    """

    token: int
    text: str
    bytes: tuple[int, ...]
    logprob: float
    top: tuple[TopToken, ...]


class Logprobs:
    """Reads log-probabilities from logits.

    Args:
        count: of the likeliest tokens, from 0.
        tokenizer: of the tokens.
    """

    def __init__(self, count: int, tokenizer: Tokenizer) -> None:
        self._count = count
        self._bytes_of: Callable[[int], bytes] = tokenizer.piece_bytes

    @classmethod
    def of(cls, count: int | None, tokenizer: Tokenizer) -> Logprobs | None:
        """As the constructor, but nothing for `count` None."""
        return None if count is None else cls(count, tokenizer)

    def __call__(self, logits: Floats, token: int) -> TokenLogprob:
        """The record of a token.

        Args:
            logits: [vocab], at its place, as the model gave them. The largest is finite.
            token: that was chosen.
        """
        values = log_softmax(logits)
        top = tuple(self._entry(values, other) for other in self._likeliest(logits))
        own = self._entry(values, token)
        return TokenLogprob(own.token, own.text, own.bytes, own.logprob, top)

    def _entry(self, values: NDArray[np.float64], token: int) -> TopToken:
        piece = self._bytes_of(token)
        text = piece.decode(errors="replace")
        return TopToken(token, text, tuple(piece), float(values[token]))

    def _likeliest(self, logits: Floats) -> list[int]:
        count = min(self._count, len(logits))
        if count == 0:
            return []
        least = np.partition(logits, -count)[-count]
        candidates = np.flatnonzero(logits >= least)  # more than `count` if some are equal
        order = np.argsort(-logits[candidates], kind="stable")[:count]
        return [int(token) for token in candidates[order]]


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Log-probabilities, at least `IMPOSSIBLE`, of logits [..., vocab] whose largest are finite."""
    relative = logits.astype(np.float64)
    relative -= relative.max(axis=-1, keepdims=True)
    relative -= np.log(np.exp(relative).sum(axis=-1, keepdims=True))
    return np.maximum(relative, IMPOSSIBLE)
