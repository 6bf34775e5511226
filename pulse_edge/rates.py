"""How fast this machine runs a bundle, by its own requests, and what that predicts."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.answer import Answer
from pulse_edge.state import recall, remember

KIND = "rates"  # of the state folder's records
KEEP = 0.95  # weight of the earlier measurements when a new one comes
QUESTIONS = 24  # whose answers' lengths are remembered; the ones asked last
SAVE_SECONDS = 30.0  # between two writes of the state folder
STAGES = ("vision", "prefill", "decode")


@dataclass(frozen=True)
class Line:
    """Seconds = fixed + each * n: least squares over measurements, of which older ones fade.

    The fields are sums over the measurements: of weights, n, n^2, seconds, and n * seconds.
    """

    weight: float = 0.0
    n: float = 0.0
    square: float = 0.0
    seconds: float = 0.0
    product: float = 0.0

    def with_one(self, n: float, seconds: float) -> Line:
        """The line with a measurement more."""
        new = (1.0, n, n * n, seconds, n * seconds)
        return Line(*(KEEP * old + value for old, value in zip(self.sums, new, strict=True)))

    @property
    def sums(self) -> tuple[float, ...]:
        return (self.weight, self.n, self.square, self.seconds, self.product)

    def at(self, n: float) -> float | None:
        """Seconds for `n`; None without a measurement."""
        if n == 0:
            return 0.0
        if self.square == 0:
            return None
        spread = self.weight * self.square - self.n**2
        if spread > 1e-3 * self.weight * self.square:
            each = (self.weight * self.product - self.n * self.seconds) / spread
            fixed = (self.seconds - each * self.n) / self.weight
            if each >= 0 and fixed >= 0:
                return fixed + each * n
            if each < 0:
                return self.seconds / self.weight
        return self.product / self.square * n  # through the origin


@dataclass(frozen=True)
class Work:
    """What a request has still to do.

    Args:
        views: for the vision tower.
        tokens: for prefill.
        question: whose answers' length counts; None generates nothing.
        most: new tokens.
    """

    views: int
    tokens: int
    question: str | None = None
    most: int = 0


class Rates:
    """Speeds of one bundle on one engine, remembered in the state folder.

    Any thread may ask for a prediction. One thread adds measurements.

    Args:
        facts: all that the speeds depend on.

    Attributes:
        facts: the same, as the state folder takes them.
        lines: seconds of each stage, by its amount.
        lengths: weight and tokens of the answers of each question.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = {"rates": json.dumps(facts, sort_keys=True, default=str)}
        self.lines: dict[str, Line] = {}
        self.lengths: dict[str, tuple[float, float]] = {}  # weight and tokens by question
        self._saved_at: float | None = None
        self._load()

    def seconds(self, work: Work, slower: float = 1.0) -> float | None:
        """Predicted seconds of work; None where something of its kind was never measured.

        Args:
            work: to predict.
            slower: how many times as long decode steps take as those that were measured, because
                other requests share them.
        """
        tokens = 0.0
        if work.question is not None:
            weight, total = self.lengths.get(_question_key(work.question)) or self._all_lengths()
            if not weight:
                return None
            tokens = min(total / weight, work.most)
        amounts = zip(STAGES, (work.views, work.tokens, tokens), strict=True)
        parts = [self.lines.get(stage, Line()).at(amount) for stage, amount in amounts]
        if parts[-1] is not None:
            parts[-1] *= slower
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def stage(self, stage: str, n: int) -> float | None:
        """Predicted seconds of one stage; None if it was never measured, or is none of `STAGES`.

        Args:
            stage: its name.
            n: its amount: views or tokens.
        """
        return self.lines.get(stage, Line()).at(n)

    def add(self, work: Work, answer: Answer, alone: bool = True) -> None:
        """Learn from a request that has ended.

        Args:
            work: what it had to do at its beginning.
            answer: its answer, which may be incomplete.
            alone: whether no other request ran meanwhile. If not, its decode steps tell nothing of
                steps of its own.
        """
        timings = answer.timings
        if timings.ttft is None:
            return
        tokens = answer.usage.new_tokens
        self._measure("vision", work.views, timings.vision)
        self._measure("prefill", work.tokens, timings.prefill)
        if alone:
            self._measure("decode", tokens, timings.total - timings.ttft)
        if work.question is not None and answer.finish_reason in ("eos", "stop", "length"):
            key = _question_key(work.question)
            weight, total = self.lengths.pop(key, (0.0, 0.0))
            self.lengths[key] = (KEEP * weight + 1, KEEP * total + tokens)
            while len(self.lengths) > QUESTIONS:
                del self.lengths[next(iter(self.lengths))]
        self._save()

    def add_prefill(self, work: Work, vision_s: float, prefill_s: float) -> None:
        """Learn from a page that was prefilled without a question."""
        self._measure("vision", work.views, vision_s)
        self._measure("prefill", work.tokens, prefill_s)
        self._save()

    def _measure(self, stage: str, n: int, seconds: float) -> None:
        if n > 0 and seconds > 0:
            self.lines[stage] = self.lines.get(stage, Line()).with_one(n, seconds)

    def _all_lengths(self) -> tuple[float, float]:
        values = tuple(self.lengths.values())
        return sum(weight for weight, _ in values), sum(total for _, total in values)

    def _load(self) -> None:
        record = recall(KIND, self.facts) or {}
        for stage in STAGES:
            sums = record.get(stage)
            if isinstance(sums, list) and len(sums) == len(Line().sums):
                self.lines[stage] = Line(*map(float, sums))
        lengths = record.get("lengths")
        if isinstance(lengths, dict):
            for key, pair in list(lengths.items())[:QUESTIONS]:
                if isinstance(pair, list) and len(pair) == 2:
                    self.lengths[key] = (float(pair[0]), float(pair[1]))

    def _save(self) -> None:
        now = time.monotonic()
        if self._saved_at is not None and now - self._saved_at < SAVE_SECONDS:
            return
        self._saved_at = now
        lines = {stage: [round(s, 9) for s in line.sums] for stage, line in self.lines.items()}
        lengths = {
            key: [round(weight, 4), round(total, 3)]
            for key, (weight, total) in self.lengths.items()
        }
        remember(KIND, self.facts, {**lines, "lengths": lengths})


def _question_key(question: str) -> str:
    """A short name for a question that does not tell it."""
    return "q" + hashlib.sha256(question.encode()).hexdigest()[:20]
