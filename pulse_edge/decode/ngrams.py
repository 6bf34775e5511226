"""What followed the last few tokens before: a memory of n-grams, for prompt lookup."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pulse_edge.decode.speculation import Guess, Record

ORDERS = (8, 4, 2, 1)  # tokens to recognise a place by, longest first
FOLLOWERS = 8  # the latest tokens that are remembered of a place
MEMORY = 8192  # tokens that are remembered between requests: some thirty reports
_GAP = -1  # stands for an image, and for where a request begins
_NUMBER = -2  # stands for any number where places are compared


class Lookup:
    """What the model read and wrote lately: of each n-gram, the tokens that followed it.

    O(1) a token. Memory is bounded by `MEMORY` tokens and one request. No n-gram, and no guess, spans a gap.

    numbers: ids of tokens that are all alike when places are compared: what follows a heart rate in a report does not
    depend on it, and a rate that was never written before would be found nowhere.
    """

    def __init__(self, numbers: Collection[int] = ()) -> None:
        self._numbers = frozenset(numbers)
        self.forget()

    def forget(self) -> None:
        self.record = Record()
        self._drop()

    def _drop(self) -> None:
        self._tokens: list[int] = []
        self._keys: list[int] = []  # of the tokens since the last gap, by which places are compared
        self._followers: dict[tuple[int, ...], tuple[int, ...]] = {}  # oldest first

    def begin(self, prompt: Iterable[int]) -> None:
        """A request: its prompt's ids, negative where an image's tokens are."""
        if len(self._tokens) > MEMORY:  # keep the newer half; indexing it again takes milliseconds, and is rare
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
                self._followers[place] = (*self._followers.get(place, ())[1 - FOLLOWERS :], token)
        self._tokens.append(token)
        self._keys.append(self._key(token))

    def _key(self, token: int) -> int:
        return _NUMBER if token in self._numbers else token

    def guesses(self) -> Iterator[Guess]:
        """The tokens that may follow, one after the other, until there is nothing to go by.

        The longest n-gram that was seen before decides, for what followed it most often, and of that the latest. The
        chance is its share, with half a token for it and half a token against.
        """
        keys = self._keys[-ORDERS[0] :]
        while True:
            places = (tuple(keys[-n:]) for n in ORDERS if n <= len(keys))
            seen = next((found for place in places if (found := self._followers.get(place))), ())
            if not seen:
                return
            token = max(reversed(seen), key=seen.count)
            yield Guess(token, (seen.count(token) + 0.5) / (len(seen) + 1))
            keys = [*keys, self._key(token)][-ORDERS[0] :]
