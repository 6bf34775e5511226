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
from pulse_edge.evaluate.ecgbench.reports import Pairs, is_broken_gold, statement_pairs
from pulse_edge.evaluate.ecgbench.score import ScoredConfig
from pulse_edge.evaluate.ecgbench.scorers import STRICT
from pulse_edge.evaluate.ecgbench.upstream import gold_text

LONGEST_SIDE = 1000  # pixels of a page in a report
MOST = 5  # of a configuration


@dataclass(frozen=True)
class Disagreement:
    """An item that a run had wrong.

    Attributes:
        item: the question.
        gold: as it was read.
        answers: by run: what was read of its answer, and the answer.
    """

    item: BenchItem
    gold: str
    answers: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class _Judged:
    """Answers of a run to a configuration, as they were read.

    Attributes:
        wrong: how wrong each item is: labels or statements that differ, else 1; int64 [item].
        gold: what each item has.
        stated: what was read of each answer.
    """

    wrong: NDArray[np.int64]
    gold: Sequence[str]
    stated: Sequence[str]


def worst_disagreements(
    config: str, names: Sequence[str], runs: Sequence[Mapping[str, ScoredConfig]]
) -> list[Disagreement]:
    """Items of a configuration that some run had wrong.

    First come those in which the runs differ most, then those with most wrong labels or statements,
    then the order of the benchmark.

    Args:
        config: its name.
        names: of the runs.
        runs: what the scorers made of each.

    Returns:
        At most `MOST`; none of the arena, whose answers only a judge can compare.
    """
    having = [(name, run[config]) for name, run in zip(names, runs, strict=True) if config in run]
    if not having or having[0][1].kind == "arena":
        return []
    judged = [_how_wrong(scored) for _, scored in having]
    wrong = np.stack([each.wrong for each in judged])  # [run, item]
    spread = wrong.max(axis=0) - wrong.min(axis=0)
    order = np.lexsort((-wrong.max(axis=0), -spread))
    places = [int(place) for place in order if wrong[:, place].any()][:MOST]
    return [
        Disagreement(
            having[0][1].paired.items[place],
            judged[0].gold[place],
            {
                name: (each.stated[place], _answer_of(scored, place))
                for (name, scored), each in zip(having, judged, strict=True)
            },
        )
        for place in places
    ]


def _how_wrong(scored: ScoredConfig) -> _Judged:
    if scored.kind == "report":
        return _judged_reports(scored)
    reading = scored.readings[STRICT]
    if reading.labelled is None:
        return _Judged((~reading.right).astype(np.int64), reading.gold, reading.stated)
    differing = reading.labelled.gold != reading.labelled.stated
    wrong = np.asarray(differing.sum(axis=1), np.int64)
    return _Judged(wrong, reading.gold, reading.stated)


def _judged_reports(scored: ScoredConfig) -> _Judged:
    """Reports by their statements. A gold that is no report makes no answer wrong."""
    texts = [gold_text(item.gold) for item in scored.paired.items]
    golds = [statement_pairs(text) for text in texts]
    answers = [statement_pairs(_answer_of(scored, place)) for place in range(len(texts))]
    wrong = [
        0 if is_broken_gold(text) else len(gold ^ answer)
        for text, gold, answer in zip(texts, golds, answers, strict=True)
    ]
    return _Judged(
        np.array(wrong, np.int64), [*map(_pairs_text, golds)], [*map(_pairs_text, answers)]
    )


def _pairs_text(pairs: Pairs) -> str:
    return "; ".join(
        finding if status == "stated" else f"{finding}: {status}"
        for finding, status in sorted(pairs)
    )


def _answer_of(scored: ScoredConfig, place: int) -> str:
    line = scored.paired.by_question.get(scored.paired.items[place].id)
    return line.whole if line else ""


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
