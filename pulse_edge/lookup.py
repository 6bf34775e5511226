"""Prompt lookup: guess the next tokens from where the last few stood before, so that one step can verify several.

Reports are templates: much of one stands word for word in the ones before it. Drafting from text instead of from a
second model is Apoorv Saxena's prompt lookup decoding (2023); drafting and verifying, arXiv 2211.17192. `generate.py`
verifies; nothing here can change an answer, only how many tokens a step gives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

NGRAMS = (8, 4, 2)  # tokens to recognise a place by, longest first
MEMORY = 8192  # tokens that are remembered between requests: some thirty reports
DRAFTS = tuple(range(1, 16, 2))  # tokens; longer ones would hardly ever be right to their end
MAX_LOSS = 0.05  # of the steps that an answer takes without drafts
ADVANCE = 2.0  # steps that an answer may lose of what those before it have saved
_GAP = -1  # stands for an image, and for where a request begins
_NUMBER = -2  # stands for any number where places are compared


class Lookup:
    """What the model read and wrote lately, and where each n-gram of it stood last.

    O(1) a token. Memory is bounded by `MEMORY` tokens and one request. No n-gram, and no draft, spans a gap.

    numbers: ids of tokens that are all alike when places are compared: what follows a heart rate in a report does not
    depend on it, and a rate that was never written before would be found nowhere. On 24 reports of pulse-nano's kind
    that is 1.46 tokens a step's time instead of 1.38 (row cost 0.4).
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
        self._last: dict[int, dict[tuple[int, ...], int]] = {n: {} for n in NGRAMS}  # n-gram -> the position after it
        self._found: int | None = None  # the position after an earlier occurrence of the last tokens

    def begin(self, prompt: Iterable[int]) -> None:
        """A request: its prompt's ids, negative where an image's tokens are."""
        if len(self._tokens) > MEMORY:  # keep the newer half; indexing it again takes milliseconds, and is rare
            kept = self._tokens[-MEMORY // 2 :]
            self._drop()
            self._read(kept)
        self._read([_GAP, *prompt])

    def _read(self, keys: Iterable[int]) -> None:
        for key in keys:
            if key >= 0:
                self.push(key)
            elif self._keys:
                self._tokens.append(_GAP)
                self._keys, self._found = [], None

    def push(self, token: int) -> None:
        """The next token of the text."""
        self._tokens.append(token)
        self._keys.append(_NUMBER if token in self._numbers else token)
        self._found, end = None, len(self._tokens)
        for n, last in self._last.items():
            if n <= len(self._keys):
                ngram = tuple(self._keys[-n:])
                if self._found is None:
                    self._found = last.get(ngram)
                last[ngram] = end

    def draft(self, count: int) -> list[int]:
        """Up to `count` tokens that followed when the last ones stood there before."""
        if self._found is None or count < 1:
            return []
        draft = self._tokens[self._found : self._found + count]
        if _GAP in draft:
            return draft[: draft.index(_GAP)]
        # Where the draft reaches the end of the text, the text repeats itself: go on repeating, as LZ77 copies.
        return draft if len(draft) == count else (draft * count)[:count]


def cost(row_cost: float, drafted: int) -> float:
    """What verifying so many drafted tokens adds to a step of one row, as a share of it.

    The kernels of a CPU take rows in pairs (7B width, int4: 2 rows 1.20 of one row's time, 3 rows 1.82, 4 rows 2.01),
    so drafts are odd, and the first of their rows costs half.
    """
    return row_cost * (drafted - 0.5) if drafted else 0.0


@dataclass
class Record:
    """What drafts were worth lately, over answers: tokens verified that were right and wrong (fading), and the steps
    saved less those lost, up to `ADVANCE`."""

    right: float = 0.0
    wrong: float = 0.0
    saved: float = 0.0


class DraftLength:
    """How many tokens of one answer to draft. It counts and takes no time, so the same requests draft the same.

    In units of a step of one row, a step that verifies a draft takes 1 + `cost`, and saves a step for each token of it
    that was right. Of the lengths whose whole loss would be affordable, it is the one that promises most tokens a time:
    with a chance c that a token is right, (1 + c + c^2 + ... + c^k) / (1 + cost). The chance is counted over some
    hundred rows, and starts (and comes back, where nothing is drafted) at 1 of 2.

    Affordable is what this answer has saved, and `MAX_LOSS` of its plain steps or the advance that answers before have
    saved. So no answer of 40 tokens costs over `MAX_LOSS` more, and no sequence of answers does.
    """

    KEEP = 0.99  # of the counts, from row to row
    PRIOR = 1, 2  # right, of so many

    def __init__(self, row_cost: float, record: Record | None = None) -> None:
        self._row_cost, self._record, self._gain = row_cost, record or Record(), 0.0
        self._record.saved = self._advance = max(0.0, self._record.saved)

    def __call__(self, tokens: int) -> int:
        """For the step after `tokens` of the answer, which plainly take that many steps, this one included."""
        right, of = self.PRIOR
        chance = (right + self._record.right) / (of + self._record.right + self._record.wrong)
        best, most, rate = 0, self._gain + max(self._advance, MAX_LOSS * tokens), 1.0
        for k in DRAFTS:
            adds = cost(self._row_cost, k)
            promised = (1 - chance ** (k + 1)) / (1 - chance) / (1 + adds)
            if adds <= most and promised > rate:
                best, rate = k, promised
        return best

    def verified(self, drafted: int, right: int) -> None:
        """The outcome of a step, also of one without a draft. What came after the first wrong token says nothing."""
        record, gain = self._record, right - cost(self._row_cost, drafted)
        self._gain += gain
        record.saved = min(ADVANCE, record.saved + gain)
        keep = self.KEEP ** (1 + drafted)
        record.right = keep * record.right + right
        record.wrong = keep * record.wrong + (right < drafted)
