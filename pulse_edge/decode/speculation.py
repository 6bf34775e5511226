"""How far to draft ahead: what verifying costs, and what earlier drafts were worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

DRAFTS = tuple(range(1, 16, 2))  # lengths in tokens; longer drafts are hardly ever right to the end
MAX_LOSS = 0.05  # of the steps that an answer takes without drafts
ADVANCE = 2.0  # steps that an answer may lose of what those before it have saved


class Guess(NamedTuple):
    """A token, and the chance that it is right if those guessed before it are."""

    token: int
    chance: float


def cost(row_cost: float, drafted: int) -> float:
    """Extra time of a step that verifies `drafted` tokens, as a fraction of a one-row step.

    The kernels of a CPU take rows in pairs (7B width, int4: 2 rows take 1.20 of one row's time, 3
    rows 1.82, 4 rows 2.01), so drafts are odd, and the first of their rows costs half.
    """
    return row_cost * (drafted - 0.5) if drafted else 0.0


@dataclass
class Record:
    """What drafts were worth lately, over answers."""

    right: float = 0.0  # verified tokens that were right; fades
    promised: float = 0.0  # how many their chances had promised; fades
    saved: float = 0.0  # steps saved less steps lost, up to `ADVANCE`


class DraftPolicy:
    """How far to follow the guesses, over one answer.

    It counts and reads no clock, so the same requests draft the same.

    In units of a one-row step, a step that verifies a draft takes 1 + `cost`, and saves a step for
    each token that was right. Of the lengths whose whole loss would be affordable, the policy takes
    the one that promises most tokens a time: with chances c, (1 + c1 + c1 c2 + ...) / (1 + cost).
    Chances are scaled by how many guesses were right lately, of those that were promised.

    Affordable is what this answer has saved, plus the larger of `MAX_LOSS` of its plain steps and
    the advance that earlier answers have saved. So no answer of 40 tokens costs over `MAX_LOSS`
    more, and no sequence of answers does.
    """

    KEEP = 0.99  # of the record's counts, from row to row
    PRIOR = 1.0  # tokens that were as promised

    def __init__(self, row_cost: float, record: Record | None = None) -> None:
        self._row_cost = row_cost
        self._record = record or Record()
        self._gain = 0.0  # steps that this answer has saved
        self._advance = max(0.0, self._record.saved)
        self._record.saved = self._advance

    def choose(self, guesses: Iterable[Guess], tokens: int, room: int) -> list[Guess]:
        """A draft for the next step.

        Args:
            guesses: what may follow, in order.
            tokens: of the answer so far; plain decoding takes as many steps, this one included.
            room: tokens at most.
        """
        record = self._record
        room = min(room, DRAFTS[-1])
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
                best = len(draft)
                rate = promised / (1 + adds)
            if len(draft) == room or adds > most or chance < self._row_cost / 2:
                break  # no further guess would pay
        return draft[:best]

    def verified(self, draft: list[Guess], right: int) -> None:
        """Record the outcome of a step, also of one without a draft.

        Args:
            draft: what the step ran ahead.
            right: how many of it were right, from the first; the rest after a wrong one is ignored.
        """
        record = self._record
        gain = right - cost(self._row_cost, len(draft))
        self._gain += gain
        record.saved = min(ADVANCE, record.saved + gain)
        keep = self.KEEP ** (1 + len(draft))
        record.right = keep * record.right + right
        record.promised = keep * record.promised + sum(guess.chance for guess in draft[: right + 1])
