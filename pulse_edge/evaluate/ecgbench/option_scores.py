"""The area under the ROC curve from option scores: the one figure that is an AUC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulse_edge.evaluate.ecgbench.reading import Paired, Reading

NAME = "auc (scores)"


def area(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive item has a higher score than a negative one; ties count half.

    Args:
        scores: [item].
        positive: bool [item].

    Returns:
        NaN if all items are of one class.
    """
    many = int(positive.sum())
    rest = len(positive) - many
    if not many or not rest:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # mean rank of ties, from 1
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * rest))


def scores_figure(paired: Paired, reading: Reading) -> dict[str, object] | None:
    """Macro AUC of a configuration whose answers carry option scores.

    Args:
        paired: items and answers; `metadata["scores"]` is option -> log-probability.
        reading: with the golds.

    Returns:
        The mean over classes that some items have and some lack, each class, and the number of
        items with scores. None if there are none.
    """
    answers = paired.by_question
    rows = []
    for place, item in enumerate(paired.items):
        scores = answers[item.id].metadata.get("scores") if item.id in answers else None
        if isinstance(scores, dict) and scores:
            rows.append((place, scores))
    if not rows:
        return None
    labelled = reading.labelled
    names = labelled.classes if labelled else tuple(sorted(set(reading.gold)))
    by_class = {}
    for column, name in enumerate(names):
        known = [(place, scores[name]) for place, scores in rows if _is_number(scores.get(name))]
        if not known:
            continue
        places = [place for place, _ in known]
        golds = [reading.gold[place] == name for place in places]
        positive = labelled.gold[places, column] if labelled else np.array(golds, bool)
        by_class[name] = area(np.array([score for _, score in known], float), positive)
    finite = [value for value in by_class.values() if not np.isnan(value)]
    mean = float(np.mean(finite)) if finite else float("nan")
    return {"value": mean, "classes": by_class, "n": len(rows)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
