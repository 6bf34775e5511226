"""TODO"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

DRAFTS = tuple(range(1, 16, 2))  # tokens; longer ones would hardly ever be right to their end
MAX_LOSS = 0.05  # of the steps that an answer takes without drafts
ADVANCE = 2.0  # steps that an answer may lose of what those before it have saved


class Guess(NamedTuple):
    """A token, and the chance that it is right if those guessed before it are."""

    token: int
    chance: float


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
