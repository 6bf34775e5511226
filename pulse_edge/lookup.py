"""Prompt lookup: guess the next tokens from what followed the last few before, so that one step can verify several.

Reports are templates: much of one stands word for word in the ones before it. Drafting from text instead of from a
second model is Apoorv Saxena's prompt lookup decoding (2023); drafting and verifying, arXiv 2211.17192. `generate.py`
verifies; nothing here can change an answer, only how many tokens a step gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

ORDERS = (8, 4, 2, 1)  # tokens to recognise a place by, longest first
FOLLOWERS = 8  # the latest tokens that are remembered of a place
MEMORY = 8192  # tokens that are remembered between requests: some thirty reports
DRAFTS = tuple(range(1, 16, 2))  # tokens; longer ones would hardly ever be right to their end
MAX_LOSS = 0.05  # of the steps that an answer takes without drafts
ADVANCE = 2.0  # steps that an answer may lose of what those before it have saved
_GAP = -1  # stands for an image, and for where a request begins
_NUMBER = -2  # stands for any number where places are compared


class Guess(NamedTuple):
    """A token, and the chance that it is right if those guessed before it are."""

    token: int
    chance: float


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


def cost(row_cost: float, drafted: int) -> float:
    """What verifying so many drafted tokens adds to a step of one row, as a share of it.

    The kernels of a CPU take rows in pairs (7B width, int4: 2 rows 1.20 of one row's time, 3 rows 1.82, 4 rows 2.01),
    so drafts are odd, and the first of their rows costs half.
    """
    return row_cost * (drafted - 0.5) if drafted else 0.0


@dataclass
class Record:
    """What drafts were worth lately, over answers: of the tokens that were verified, how many were right and how many
    their chances had promised (both fading); the steps saved less those lost, up to `ADVANCE`."""

    right: float = 0.0
    promised: float = 0.0
    saved: float = 0.0


class Drafts:
    """How far to follow the guesses, over one answer. It counts and takes no time, so the same requests draft the same.

    In units of a step of one row, a step that verifies a draft takes 1 + `cost`, and saves a step for each token of it
    that was right. Of the lengths whose whole loss would be affordable, it is the one that promises most tokens a time:
    with chances c, (1 + c1 + c1 c2 + ...) / (1 + cost). Chances are scaled by how many guesses were right lately, of
    those that were promised.

    Affordable is what this answer has saved, and `MAX_LOSS` of its plain steps or the advance that answers before have
    saved. So no answer of 40 tokens costs over `MAX_LOSS` more, and no sequence of answers does.
    """

    KEEP = 0.99  # of the record's counts, from row to row
    PRIOR = 1.0  # tokens that were as promised

    def __init__(self, row_cost: float, record: Record | None = None) -> None:
        self._row_cost, self._record, self._gain = row_cost, record or Record(), 0.0
        self._record.saved = self._advance = max(0.0, self._record.saved)

    def choose(self, guesses: Iterable[Guess], tokens: int, room: int) -> list[Guess]:
        """The draft of the step after `tokens` of the answer, which plainly take that many steps, this one included.

        At most `room` tokens.
        """
        record, room = self._record, min(room, DRAFTS[-1])
        trust = (self.PRIOR + record.right) / (self.PRIOR + record.promised)
        most = self._gain + max(self._advance, MAX_LOSS * tokens)
        draft: list[Guess] = []
        best, rate, chance, promised = 0, 1.0, 1.0, 1.0
        if room < 1 or cost(self._row_cost, 1) > most:
            return draft
        for guess in guesses:
            draft.append(guess)
            chance *= min(0.98, trust * guess.chance)
            promised += chance
            adds = cost(self._row_cost, len(draft))
            if len(draft) in DRAFTS and adds <= most and promised / (1 + adds) > rate:
                best, rate = len(draft), promised / (1 + adds)
            if len(draft) == room or adds > most or chance < self._row_cost / 2:  # nor would any further one pay
                break
        return draft[:best]

    def verified(self, draft: list[Guess], right: int) -> None:
        """The outcome of a step, also of one without a draft. What came after the first wrong token says nothing."""
        record, gain = self._record, right - cost(self._row_cost, len(draft))
        self._gain += gain
        record.saved = min(ADVANCE, record.saved + gain)
        keep = self.KEEP ** (1 + len(draft))
        record.right = keep * record.right + right
        record.promised = keep * record.promised + sum(guess.chance for guess in draft[: right + 1])
