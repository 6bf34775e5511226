"""What a scorer reads: answers in, figures and readings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.metrics import Labelled
from pulse_edge.evaluate.ecgbench.run_file import AnswerLine


@dataclass(frozen=True)
class Paired:
    """The items of a configuration, and the answers to them.

    Attributes:
        config: its name.
        items: all of them, in the order of the benchmark.
        lines: answers to items, in the order of their file.
    """

    config: str
    items: Sequence[BenchItem]
    lines: Sequence[AnswerLine]

    @cached_property
    def places(self) -> dict[str, int]:
        """Question -> its index in `items`."""
        return {item.id: place for place, item in enumerate(self.items)}

    @cached_property
    def by_question(self) -> dict[str, AnswerLine]:
        """Question -> the answer to it."""
        return {line.question_id: line for line in self.lines}


@dataclass(frozen=True)
class Reading:
    """What a scorer read of the answers to one configuration.

    Attributes:
        right: whether each item is right, bool [item]. With several labels: exactly right.
        labelled: of a configuration with several labels.
        stated: what was read of each answer, as words for people; "" is nothing.
        gold: what each item has, likewise.
        unparsable: whether nothing could be read of an answer, bool [item].
        guessed: answers that the authors' functions replace by a random letter.
        notes: further counts and tables, JSON-ready.
    """

    right: NDArray[np.bool_]
    labelled: Labelled | None
    stated: Sequence[str]
    gold: Sequence[str]
    unparsable: NDArray[np.bool_]
    guessed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)


def label_reading(
    classes: Sequence[str], golds: Sequence[Sequence[str]], stated: Sequence[Sequence[str]]
) -> Reading:
    """The reading of a configuration with several labels.

    Args:
        classes: the label space.
        golds: labels of each item; others than those of the space are left out.
        stated: labels read of each answer.
    """
    labelled = Labelled(
        tuple(classes), _label_matrix(classes, golds), _label_matrix(classes, stated)
    )
    return Reading(
        labelled.exact,
        labelled,
        ["; ".join(labels) for labels in stated],
        ["; ".join(labels) for labels in golds],
        np.array([not labels for labels in stated], bool),
    )


def _label_matrix(classes: Sequence[str], labels: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
    rows = [[name in each for name in classes] for each in labels]
    return np.array(rows, bool).reshape(len(labels), len(classes))


def confusion_table(
    golds: Sequence[Sequence[str]], stated: Sequence[Sequence[str]]
) -> dict[str, dict[str, int]]:
    """How often each word was stated for each gold word. "" is a gold or an answer without one.

    Args:
        golds: labels of each item.
        stated: labels read of each answer.
    """
    table: dict[str, dict[str, int]] = {}
    for gold, each in zip(golds, stated, strict=True):
        for row in gold or ("",):
            for column in each or ("",):
                counts = table.setdefault(row, {})
                counts[column] = counts.get(column, 0) + 1
    return {row: dict(sorted(table[row].items())) for row in sorted(table)}
