"""Figures of several labels at once, from 0/1 matrices [item, class] and counts of draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_edge.evaluate.scoring import rates

Matrix = NDArray[np.bool_]
Figures = NDArray[np.float64]  # [draw], or [draw, class]


@dataclass(frozen=True)
class Labelled:
    """Which classes items have, and which were stated.

    Attributes:
        classes: names of the columns.
        gold: bool [item, class].
        stated: bool [item, class].
    """

    classes: tuple[str, ...]
    gold: Matrix
    stated: Matrix

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Whether the classes stated are those of the item, bool [item]."""
        return np.asarray((self.gold == self.stated).all(axis=1))

    def only(self, columns: NDArray[np.intp]) -> Labelled:
        """The same items with fewer classes.

        Args:
            columns: their indices.
        """
        names = tuple(self.classes[i] for i in columns)
        return Labelled(names, self.gold[:, columns], self.stated[:, columns])


@dataclass(frozen=True)
class Counts:
    """True and false positives and negatives, float64 [draw, class]."""

    tp: Figures
    fp: Figures
    fn: Figures
    tn: Figures

    @property
    def f1(self) -> Figures:
        """NaN for a class that neither occurs nor is stated."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def sensitivity(self) -> Figures:
        """NaN for a class that no item has."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> Figures:
        """NaN for a class that every item has."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def ppv(self) -> Figures:
        """NaN for a class that is never stated."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def balanced(self) -> Figures:
        """Balanced accuracy: what the authors call AUC."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def hamming(self) -> Figures:
        """Share of wrong cells, [draw]. NaN without classes."""
        wrong = (self.fp + self.fn).sum(axis=1)
        return _ratio(wrong, (self.tp + self.fp + self.fn + self.tn).sum(axis=1))


def count(labelled: Labelled, weights: NDArray[np.float32]) -> Counts:
    """Counts of each class in each draw.

    Args:
        labelled: the items.
        weights: how often each draw has each item, [draw, item].
    """
    gold = labelled.gold
    stated = labelled.stated
    cells = (gold & stated, ~gold & stated, gold & ~stated, ~gold & ~stated)
    # Integers below 2**24 are exact in float32, and so are their sums here.
    return Counts(*((weights @ cell.astype(np.float32)).astype(np.float64) for cell in cells))


def _ratio(over: Figures, under: Figures) -> Figures:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(over / np.where(under == 0, np.nan, under))


def authors_figures(labelled: Labelled, weights: NDArray[np.float32]) -> dict[str, Figures]:
    """The authors' `f1`, `auc` and `hamming_loss`, [draw] each.

    Their classes are those that occur in the golds. Without one their code stops with an error,
    which is NaN here. With exactly one, scikit-learn takes the column for a binary problem, and the
    number kept is the F1 of the class's absence. One class that every item has makes `auc` NaN.

    Args:
        labelled: the items, with any classes.
        weights: see `count`.
    """
    kept = labelled.only(np.flatnonzero(labelled.gold.any(axis=0)))
    counts = count(kept, weights)
    if not kept.classes:
        nothing = np.full(len(weights), np.nan)
        return {"f1": nothing, "auc": nothing, "hamming_loss": nothing}
    f1 = np.nan_to_num(counts.f1)
    if len(kept.classes) == 1:
        absence = Counts(counts.tn, counts.fn, counts.fp, counts.tp).f1
        f1 = np.where(np.isnan(absence), f1, absence)
    return {
        "f1": f1.mean(axis=1),
        "auc": counts.balanced.mean(axis=1),
        "hamming_loss": counts.hamming,
    }


def strict_figures(labelled: Labelled, weights: NDArray[np.float32]) -> dict[str, Figures]:
    """Figures over a fixed label space, [draw] each.

    The mean of F1 is over classes that occur or are stated, that of balanced accuracy over classes
    that some items have and some lack.

    Args:
        labelled: the items.
        weights: see `count`.
    """
    counts = count(labelled, weights)
    return {
        "f1": _mean(counts.f1),
        "balanced_accuracy": _mean(counts.balanced),
        "hamming_loss": counts.hamming,
        "accuracy": rates(labelled.exact, weights),
    }


def class_table(labelled: Labelled) -> dict[str, dict[str, float]]:
    """By class: its counts, sensitivity, specificity, PPV, F1 and balanced accuracy.

    Args:
        labelled: the items.
    """
    counts = count(labelled, np.ones((1, len(labelled.gold)), np.float32))
    figures = {
        "sensitivity": counts.sensitivity,
        "specificity": counts.specificity,
        "ppv": counts.ppv,
        "f1": counts.f1,
        "balanced_accuracy": counts.balanced,
    }
    return {
        name: {"present": float((counts.tp + counts.fn)[0, i])}
        | {"stated": float((counts.tp + counts.fp)[0, i])}
        | {figure: float(values[0, i]) for figure, values in figures.items()}
        for i, name in enumerate(labelled.classes)
    }


def _mean(values: Figures) -> Figures:
    finite = ~np.isnan(values)
    return _ratio(np.where(finite, values, 0).sum(axis=1), finite.sum(axis=1).astype(np.float64))
