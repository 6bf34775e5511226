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
DRAWS = 1000  # of the bootstrap
_STEP = np.uint64(0x9E3779B97F4A7C15)  # splitmix64 (Steele, Lea and Flood 2014)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


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
    return percentiles(np.array(figures, float)) or (NAN, NAN)


def percentiles(figures: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % interval of a figure.

    Args:
        figures: of each draw.

    Returns:
        (low, high); None if no draw has the figure.
    """
    finite = figures[np.isfinite(figures)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def resamples(items: int, draws: int = DRAWS) -> NDArray[np.float32]:
    """How often each draw has each item, float32 [1 + draws, item].

    The first row is the sample itself. The others draw `items` items with replacement, by a hash of
    the draw's and the item's number: no generator has a state that could differ.

    Args:
        items: of the sample, at least one.
        draws: of the bootstrap.
    """
    weights = np.ones((draws + 1, items), np.float32)
    places = np.arange(items, dtype=np.uint64)
    for draw in range(draws):
        drawn = _splitmix(places + np.uint64(1 + draw * items)) % np.uint64(items)
        weights[draw + 1] = np.bincount(drawn.astype(np.int64), minlength=items)
    return weights


def _splitmix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = numbers * _STEP
    for shift, factor in _MIX:
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(value ^ (value >> np.uint64(31)))


def rates(right: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of right items in each draw.

    Args:
        right: [item].
        weights: see `resamples`.
    """
    return np.asarray((weights @ right.astype(np.float32)).astype(np.float64) / len(right))


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
