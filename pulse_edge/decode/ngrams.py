"""A memory of n-grams: what followed the last few tokens before. Speculation drafts from it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pulse_edge.decode.speculation import Guess, Record

ORDERS = (8, 4, 2, 1)  # tokens to recognise a place by, longest first
FOLLOWERS = 8  # the latest tokens that are remembered of a place
MEMORY = 8192  # tokens that are remembered between requests: some thirty reports
_GAP = -1  # stands for an image, and for where a request begins
_NUMBER = -2  # stands for any number where places are compared


class Ngrams:
    """Of each n-gram that the model read or wrote lately, the tokens that followed it.

    O(1) a token. Memory is bounded by `MEMORY` tokens and one request. No n-gram and no guess spans
    an image or two requests.

    Args:
        numbers: ids of tokens that count as one when n-grams are compared. What follows a heart
            rate in a report does not depend on it, and a rate that was never written before would
            match nothing.
    """

    def __init__(self, numbers: Collection[int] = ()) -> None:
        self._numbers = frozenset(numbers)
        self.forget()

    def forget(self) -> None:
        """Drop everything, the record of earlier drafts too."""
        self.record = Record()
        self._drop()

    def _drop(self) -> None:
        self._tokens: list[int] = []
        self._keys: list[int] = []  # tokens since the last gap, numbers replaced by _NUMBER
        self._followers: dict[tuple[int, ...], tuple[int, ...]] = {}  # oldest first

    def begin(self, prompt: Iterable[int]) -> None:
        """Start a request. `prompt`: its ids, negative at an image's tokens."""
        if len(self._tokens) > MEMORY:  # keep the newer half; indexing it again takes milliseconds
            kept = self._tokens[-MEMORY // 2 :]
            self._drop()
            self._read(kept)
        self._read([_GAP, *prompt])

    def _read(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            if token >= 0:
                self.push(token)
            elif self._keys:
                self._tokens.append(_GAP)
                self._keys = []

    def push(self, token: int) -> None:
        """The next token of the text."""
        for n in ORDERS:
            if n <= len(self._keys):
                place = tuple(self._keys[-n:])
                earlier = self._followers.get(place, ())[1 - FOLLOWERS :]
                self._followers[place] = (*earlier, token)
        self._tokens.append(token)
        self._keys.append(self._key(token))

    def _key(self, token: int) -> int:
        return _NUMBER if token in self._numbers else token

    def guesses(self) -> Iterator[Guess]:
        """The tokens that may follow, one after the other, until no n-gram matches.

        The longest n-gram that was seen before decides. The guess is what followed it most often,
        and among equals the latest. Its chance is its share of the followers, with half a follower
        added for it and half against.
        """
        keys = self._keys[-ORDERS[0] :]
        while True:
            places = (tuple(keys[-n:]) for n in ORDERS if n <= len(keys))
            matches = (self._followers.get(place) for place in places)
            seen = next(filter(None, matches), ())
            if not seen:
                return
            token = max(reversed(seen), key=seen.count)
            yield Guess(token, (seen.count(token) + 0.5) / (len(seen) + 1))
            keys = [*keys, self._key(token)][-ORDERS[0] :]
