"""The worst disagreements: items that a run had wrong, those first that another run had right."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import PulseEdgeError
from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.score import ScoredConfig
from pulse_edge.evaluate.ecgbench.scorers import STRICT

LONGEST_SIDE = 1000  # pixels of a page in a report
MOST = 5  # of a configuration


@dataclass(frozen=True)
class Disagreement:
    """An item that a run had wrong.

    Attributes:
        item: the question.
        gold: as `strict` reads it.
        answers: by run: what `strict` reads of its answer, and the answer.
    """

    item: BenchItem
    gold: str
    answers: Mapping[str, tuple[str, str]]


def worst_disagreements(
    config: str, names: Sequence[str], runs: Sequence[Mapping[str, ScoredConfig]]
) -> list[Disagreement]:
    """Items of a configuration that some run had wrong.

    First come those in which the runs differ most, then those with most wrong labels, then the
    order of the benchmark.

    Args:
        config: its name.
        names: of the runs.
        runs: what the scorers made of each.
    """
    having = [(name, run[config]) for name, run in zip(names, runs, strict=True) if config in run]
    if not having or STRICT not in having[0][1].readings:
        return []
    wrong = np.stack([_wrong(scored) for _, scored in having])  # [run, item]
    spread = wrong.max(axis=0) - wrong.min(axis=0)
    order = np.lexsort((-wrong.max(axis=0), -spread))
    places = [int(place) for place in order if wrong[:, place].any()][:MOST]
    first = having[0][1]
    return [
        Disagreement(
            first.paired.items[place],
            first.readings[STRICT].gold[place],
            {name: _read_as(scored, place) for name, scored in having},
        )
        for place in places
    ]


def _wrong(scored: ScoredConfig) -> NDArray[np.int64]:
    """How wrong each item is: labels that differ, else 1."""
    reading = scored.readings[STRICT]
    if reading.labelled is not None:
        wrong = reading.labelled.gold != reading.labelled.stated
        return np.asarray(wrong.sum(axis=1), np.int64)
    return (~reading.right).astype(np.int64)


def _read_as(scored: ScoredConfig, place: int) -> tuple[str, str]:
    line = scored.paired.by_question.get(scored.paired.items[place].id)
    return scored.readings[STRICT].stated[place], line.whole if line else ""


def page_picture(path: Path) -> str | None:
    """A page as a `data:` URI, scaled down so that a report can hold several.

    Args:
        path: of its file.

    Returns:
        None if it is missing or cannot be read.
    """
    from pulse_edge.page.source import read_page

    try:
        image = read_page(path).image
    except (PulseEdgeError, OSError):
        return None
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
