"""Reading answers, and figures made of (truth, answer) pairs. No figure knows what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.simulation.questions import find

Labels = frozenset[str]
MEAN = "mean of the tasks"  # what a summary calls it
NAN = float("nan")  # a figure of no pairs


def named(text: str, names: tuple[str, ...]) -> Labels:
    """All of the names that occur in a text."""
    low = text.lower()
    return frozenset(name for name in names if name.lower() in low)


def finding(text: str, absent: str, names: tuple[str, ...]) -> str | None:
    """The name that a text states, or "none" if the text says so.

    Args:
        text: an answer.
        absent: words that say that there is none.
        names: to look for.

    Returns:
        None if the text says neither: silence is not an answer.
    """
    return find(text, names) or ("none" if absent.lower() in text.lower() else None)


def balanced(pairs: list[tuple[Any, Any]]) -> float:
    """Mean recall over the classes that occur."""
    hits: dict[Any, list[bool]] = {}
    for truth, answer in pairs:
        hits.setdefault(truth, []).append(truth == answer)
    return float(np.mean([np.mean(h) for h in hits.values()])) if hits else NAN


def set_recall(pairs: list[tuple[Labels, Labels]]) -> float:
    """Mean recall over labels."""
    hits: dict[str, list[bool]] = {}
    for truth, answer in pairs:
        for label in truth:
            hits.setdefault(label, []).append(label in answer)
    return float(np.mean([np.mean(h) for h in hits.values()])) if hits else NAN


def macro_f1(pairs: list[tuple[Labels, Labels]]) -> float:
    """Mean F1 over the labels that occur."""
    scores = []
    for label in {name for truth, _ in pairs for name in truth}:
        both = sum(label in truth and label in answer for truth, answer in pairs)
        either = sum((label in truth) + (label in answer) for truth, answer in pairs)
        scores.append(2 * both / either)
    return float(np.mean(scores)) if scores else NAN


def share(values: list[Any]) -> float:
    """Mean of truth values or numbers."""
    return float(np.mean(values)) if values else NAN


def bootstrap(
    figure: Callable[[list[Any]], float], values: list[Any], draws: int, seed: int
) -> tuple[float, float]:
    """The 95 % interval of a figure, by drawing from `values` with replacement.

    Returns:
        (low, high); NaN if no draw has the figure.
    """
    rng = np.random.default_rng(seed)
    figures = []
    for _ in range(draws if values else 0):
        figures.append(figure([values[i] for i in rng.integers(0, len(values), len(values))]))
    if not np.isfinite(figures).any():
        return NAN, NAN
    low, high = np.nanpercentile(figures, [2.5, 97.5])
    return float(low), float(high)


def confusion(pairs: list[tuple[str, str | None]], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Counts, int64 [truth, answer]; the last column is any other answer."""
    counts = np.zeros((len(names), len(names) + 1), np.int64)
    for truth, answer in pairs:
        column = names.index(answer) if answer in names else len(names)
        counts[names.index(truth), column] += 1
    return counts


def label_table(pairs: list[tuple[Labels, Labels]]) -> dict[str, dict[str, int]]:
    """Counts per label of findings that can occur together: present, found, and stated where
    absent."""
    return {
        label: {
            "present": sum(label in truth for truth, _ in pairs),
            "found": sum(label in truth and label in answer for truth, answer in pairs),
            "false": sum(label not in truth and label in answer for truth, answer in pairs),
        }
        for label in sorted({name for pair in pairs for names in pair for name in names})
    }
