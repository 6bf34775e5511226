"""Chooses draft lengths.

From the cost of verifying a draft, and from how often earlier drafts were right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

DRAFTS = tuple(range(1, 16, 2))  # lengths in tokens; longer drafts are hardly ever right to the end
MAX_LOSS = 0.05  # largest slowdown of an answer, as a fraction of its steps without drafts
ADVANCE = 2.0  # steps saved by earlier answers that one answer may lose again, at most


class Guess(NamedTuple):
    """A token, and the chance that it is right if those guessed before it are."""

    token: int
    chance: float


def cost(row_cost: float, drafted: int, draft_cost: float = 0.0) -> float:
    """Extra time of a step that verifies `drafted` tokens, as a fraction of a one-row step.

    CPU kernels process rows in pairs. With the token before it, a draft of odd length fills whole
    pairs, so drafts are odd, and the first drafted row costs half. (7B width, int4: 2 rows take
    1.20 times the time of one row, 3 rows 1.82, 4 rows 2.01.)
    """
    return draft_cost + row_cost * (drafted - 0.5) if drafted else 0.0


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
    each token that was right. A length is affordable if the answer could lose the draft's whole
    cost. Of the affordable lengths, the policy takes the one with the most expected tokens per
    time, (1 + c1 + c1 c2 + ...) / (1 + cost) for chances c. It first scales the chances by right /
    promised guesses of recent drafts.

    The budget is what this answer has saved so far, plus the larger of two numbers: `MAX_LOSS` of
    its plain steps, and the advance that earlier answers have saved (up to `ADVANCE`). So no answer
    of 40 or more tokens (`ADVANCE` / `MAX_LOSS`) becomes more than `MAX_LOSS` slower, and no
    sequence of answers does.
    """

    KEEP = 0.99  # factor by which a record's counts fade with each verified row
    PRIOR = 1.0  # added to both counts, so that trust starts at 1

    def __init__(
        self,
        row_cost: float,
        record: Record | None = None,
        draft_cost: float = 0.0,
        most: int = DRAFTS[-1],
    ) -> None:
        """Start an answer.

        Args:
            row_cost: see `Engine`.
            record: of earlier answers.
            draft_cost: see `Engine`.
            most: tokens of a draft.
        """
        self._row_cost = row_cost
        self._draft_cost = draft_cost
        self._most = min(most, DRAFTS[-1])
        self._record = record or Record()
        self._gain = 0.0  # steps that this answer has saved
        self._advance = max(0.0, self._record.saved)
        self._record.saved = self._advance

    def choose(self, guesses: Iterable[Guess], tokens: int, room: int) -> list[Guess]:
        """A draft for the next step.

        Args:
            guesses: what may follow, in order.
            tokens: length of the answer so far. Plain decoding would have run as many steps, this
                one included.
            room: tokens at most.
        """
        record = self._record
        room = min(room, self._most)
        trust = (self.PRIOR + record.right) / (self.PRIOR + record.promised)
        most = self._gain + max(self._advance, MAX_LOSS * tokens)
        draft: list[Guess] = []
        best, rate, chance, promised = 0, 1.0, 1.0, 1.0
        if room < 1 or self._cost(1) > most:
            return draft
        for guess in guesses:
            draft.append(guess)
            chance *= min(0.98, trust * guess.chance)
            promised += chance
            adds = self._cost(len(draft))
            if len(draft) in DRAFTS and adds <= most and promised / (1 + adds) > rate:
                best = len(draft)
                rate = promised / (1 + adds)
            if len(draft) == room or adds > most or chance < self._row_cost / 2:
                break  # no further guess would pay
        return draft[:best]

    def _cost(self, drafted: int) -> float:
        return cost(self._row_cost, drafted, self._draft_cost)

    def verified(self, draft: list[Guess], right: int) -> None:
        """Record the outcome of a step, also of one without a draft.

        Args:
            draft: what the step ran ahead.
            right: how many of it were right, from the first; the rest after a wrong one is ignored.
        """
        record = self._record
        gain = right - self._cost(len(draft))
        self._gain += gain
        record.saved = min(ADVANCE, record.saved + gain)
        keep = self.KEEP ** (1 + len(draft))
        record.right = keep * record.right + right
        record.promised = keep * record.promised + sum(guess.chance for guess in draft[: right + 1])
