"""Seconds that an engine is busy with one ECG, from the rates of `benchmarks.compare`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]
PREFILL, DECODE, VISION = "pp", "tg", "vision"


@dataclass(frozen=True)
class Rates:
    """What an engine does in a second.

    Attributes:
        views: of pages through the vision tower.
        prefill: prompt tokens.
        decode: tokens of an answer, after a page.
        source: where the figures are from.
    """

    views: float
    prefill: float
    decode: float
    source: str


@dataclass(frozen=True)
class Ecg:
    """What is asked about one ECG.

    Attributes:
        views: of its page.
        page_tokens: of its page and the first question.
        questions: about it, one after the other without a pause.
        question_tokens: prefilled for each further question.
        answer_tokens: mean length of an answer.
        spread: standard deviation of an answer's length as a share of the mean.
    """

    views: int = 5
    page_tokens: int = 2933
    questions: int = 3
    question_tokens: int = 40
    answer_tokens: float = 100
    spread: float = 0.5


@dataclass(frozen=True)
class ServiceTime:
    """Seconds of an engine for an ECG: a fixed part, and answers of random length.

    Attributes:
        fixed: for the page and the questions.
        mean: of all.
        deviation: standard deviation.
        answer_mean: of one answer.
        answers: how many.
        spread: see `Ecg`.
    """

    fixed: float
    mean: float
    deviation: float
    answer_mean: float
    answers: int
    spread: float

    @property
    def variability(self) -> float:
        """Squared coefficient of variation."""
        return (self.deviation / self.mean) ** 2

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Random seconds of `count` ECGs. Lengths of answers have a gamma distribution."""
        if self.spread == 0:
            return np.full(count, self.mean)
        shape = self.answers / self.spread**2  # a sum of gammas of one scale is a gamma
        scale = self.answer_mean * self.spread**2
        seconds: NDArray[np.float64] = self.fixed + rng.gamma(shape, scale, count)
        return seconds


def service_time(rates: Rates, ecg: Ecg) -> ServiceTime:
    """The time of an ECG at given rates."""
    prompt = ecg.page_tokens + (ecg.questions - 1) * ecg.question_tokens
    fixed = ecg.views / rates.views + prompt / rates.prefill
    answer = ecg.answer_tokens / rates.decode
    return ServiceTime(
        fixed=fixed,
        mean=fixed + ecg.questions * answer,
        deviation=math.sqrt(ecg.questions) * ecg.spread * answer,
        answer_mean=answer,
        answers=ecg.questions,
        spread=ecg.spread,
    )


def measured_rates(file: Path, layers: int = 32) -> dict[str, Rates]:
    """Rates of our own engines in comparisons of a whole model, the last of each.

    Args:
        file: JSON lines of `benchmarks.compare`.
        layers: of a whole model.

    Returns:
        By machine and precision. Only entries that have all three rates.
    """
    found = {}
    for line in file.read_text("utf-8").splitlines():
        record = json.loads(line)
        if record["sizes"]["layers"] == layers:
            for name, rates in _entries(record):
                found[name] = rates
    return found


def _entries(record: Record) -> Iterator[tuple[str, Rates]]:
    place = record["machine"].get("gpu") or record["machine"]["name"]
    place = place.split(",")[0]
    for entry in record["entries"]:
        figures = entry["figures"]
        if not entry["name"].startswith("ours "):
            continue
        prefill = _at(figures, PREFILL, 2933)
        decode = _at(figures, DECODE, 3000)
        views = next((f["p50"] for n, f in figures.items() if n.startswith(VISION)), None)
        if prefill and decode and views:
            name = f"{place}, {entry['name'].removeprefix('ours ')}"
            yield name, Rates(views, prefill, decode, f"compare.jsonl, {record['time']}")


def _at(figures: dict[str, Any], kind: str, tokens: int) -> float | None:
    """The rate of a point: `pp2933`, or `tg32 @ d3000`."""
    for name, figure in figures.items():
        if name == f"{kind}{tokens}" or (name.startswith(kind) and name.endswith(f"@ d{tokens}")):
            return float(figure["p50"])
    return None
