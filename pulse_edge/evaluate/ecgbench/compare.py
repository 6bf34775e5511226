"""Two runs of the same questions: identical answers, and whether a difference is chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.evaluate.ecgbench.reading import Paired
from pulse_edge.evaluate.scoring import percentiles

Figures = Mapping[str, NDArray[np.float64]]


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """McNemar's exact test of two runs, two-sided.

    Args:
        first: whether each item was right, bool [item].
        second: the same, of the other run.

    Returns:
        Items that only one of them had right, and `p`.
    """
    only_first = int((first & ~second).sum())
    only_second = int((~first & second).sum())
    trials = only_first + only_second
    tail = sum(math.comb(trials, k) for k in range(min(only_first, only_second) + 1))
    return {
        "only_first": only_first,
        "only_second": only_second,
        "p": min(1.0, 2 * tail / 2**trials),
    }


def identical_share(first: Paired, second: Paired) -> dict[str, Any]:
    """Share of equal texts among the items that both runs answered.

    Args:
        first: items and answers of one run.
        second: the same items and the answers of the other.

    Returns:
        `identical`, None if there is no such item, and `answered_by_both`.
    """
    other = second.by_question
    pairs = [
        (line.whole, other[line.question_id].whole)
        for line in first.lines
        if line.question_id in other
    ]
    share = sum(a == b for a, b in pairs) / len(pairs) if pairs else None
    return {"identical": share, "answered_by_both": len(pairs)}


def differences(first: Figures, second: Figures) -> dict[str, Any]:
    """Second minus first, with the interval of the paired bootstrap: both drew the same items.

    Args:
        first: figures by name, each [1 + draw].
        second: the same figures of the other run.
    """
    return {
        name: {
            "value": float(second[name][0] - values[0]),
            "interval": percentiles((second[name] - values)[1:]),
        }
        for name, values in first.items()
    }
