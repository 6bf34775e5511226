"""The table of scorers: how each reads the answers of a configuration, and its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.metrics import authors_figures, strict_figures
from pulse_edge.evaluate.ecgbench.reading import Paired, Reading
from pulse_edge.evaluate.ecgbench.strict_choices import read_strict_choices
from pulse_edge.evaluate.ecgbench.strict_labels import read_strict_labels
from pulse_edge.evaluate.ecgbench.strict_options import read_strict_options
from pulse_edge.evaluate.ecgbench.upstream import read_gem, read_upstream
from pulse_edge.evaluate.scoring import rates

STRICT = "strict"


def read_strict(paired: Paired) -> Reading:
    """The strict reading of a configuration.

    Args:
        paired: its items and answers.
    """
    readers = {
        "labels": read_strict_labels,
        "choice": read_strict_choices,
        "qa": read_strict_options,
    }
    return readers[CONFIGURATIONS[paired.config].kind](paired)


SCORERS: Mapping[str, Callable[[Paired], Reading]] = {
    "upstream": read_upstream,
    "gem": read_gem,
    STRICT: read_strict,
}


def readings_of(paired: Paired, scorers: Iterable[str]) -> dict[str, Reading]:
    """Readings of a configuration, by scorer.

    Args:
        paired: its items and answers.
        scorers: keys of `SCORERS`.
    """
    readings: dict[str, Reading] = {}
    for name in scorers:
        # GEM changed ECG-QA alone, so elsewhere the two share a reading and its figures.
        alike = name == "gem" and CONFIGURATIONS[paired.config].kind != "qa"
        known = readings.get("upstream") if alike else None
        readings[name] = known or SCORERS[name](paired)
    return readings


def figures_of(
    scorer: str, reading: Reading, weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Figures of a reading, [1 + draw] each.

    Args:
        scorer: a key of `SCORERS`.
        reading: what it read.
        weights: as `resamples` returns them.
    """
    if reading.labelled is None:
        return {"accuracy": rates(reading.right, weights)}
    if scorer == STRICT:
        return strict_figures(reading.labelled, weights)
    return authors_figures(reading.labelled, weights)
