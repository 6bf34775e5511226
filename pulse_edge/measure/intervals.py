"""Bootstrap intervals of medians, and of the ratio of two medians.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13). The
median of few repetitions has few distinct values, so with 5 or fewer a 95 % interval reaches from
the least to the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pulse_edge.arrays import Floats

CONFIDENCE = 0.95
RESAMPLES = 2000
MOST_SAMPLES = 2000  # resampling more takes seconds, and their median hardly varies
Interval = tuple[float, float]


def median_interval(samples: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """An interval that holds the median of what was sampled.

    Args:
        samples: repetitions, at least one. A single one is its own interval.
        confidence: probability, below 1.
    """
    return _percentiles(_medians(samples, 0), confidence)


def ratio_interval(
    now: Sequence[float], before: Sequence[float], confidence: float = CONFIDENCE
) -> Interval:
    """An interval that holds median(now) / median(before).

    Args:
        now: repetitions, at least one.
        before: likewise, all above 0.
        confidence: probability, below 1.
    """
    return _percentiles(_medians(now, 0) / _medians(before, 1), confidence)


def _medians(samples: Sequence[float], seed: int) -> Floats:
    """Medians of resamples. The seed is fixed, so the same record gives the same verdict."""
    values = np.asarray(samples, np.float64)
    rng = np.random.default_rng(seed)
    if len(values) > MOST_SAMPLES:
        values = rng.choice(values, MOST_SAMPLES, replace=False)
    count = RESAMPLES if len(values) > 1 else 1
    medians: Floats = np.empty(RESAMPLES)
    rows = max(1, 200_000 // len(values))  # so that a resample's indices take 2 MB at most
    for at in range(0, count, rows):
        picked = rng.integers(0, len(values), (min(rows, count - at), len(values)))
        medians[at : at + rows] = np.median(values[picked], axis=1)
    if count == 1:
        medians[:] = values[0]
    return medians


def _percentiles(values: Floats, confidence: float) -> Interval:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, (tail, 100 - tail))
    return float(low), float(high)
