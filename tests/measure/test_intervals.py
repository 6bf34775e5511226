"""Bootstrap intervals: of known samples, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.measure.intervals import median_interval, ratio_interval


@pytest.mark.parametrize(
    ("samples", "interval"),
    [
        ([3.0], (3, 3)),
        ([2.0, 2.0, 2.0], (2, 2)),
        ([1.0, 5.0], (1, 5)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], (1, 5)),  # P(median of a resample is the least) = 5.8 %
        ([7.0, 1.0, 4.0], (1, 7)),
    ],
)
def test_few_samples_reach_from_the_least_to_the_largest(
    samples: list[float], interval: tuple[float, float]
) -> None:
    assert median_interval(samples) == interval


def test_many_samples_hold_the_median_tightly() -> None:
    low, high = median_interval(np.linspace(0, 1, 1001).tolist())
    assert 0.45 < low < 0.5 < high < 0.55
    many = median_interval(np.linspace(0, 1, 50_000).tolist())
    assert 0.45 < many[0] < many[1] < 0.55


def test_it_holds_the_true_median_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        low, high = median_interval(rng.normal(10, 1, 15).tolist())
        held += low <= 10 <= high
    assert held >= 88


def test_ratios() -> None:
    assert ratio_interval([3.0], [2.0]) == (1.5, 1.5)
    assert ratio_interval([2.0, 4.0], [1.0, 2.0]) == (1, 4)
    low, high = ratio_interval([2.0, 4.0], [1.0, 2.0], confidence=0.2)
    assert 1 < low <= high < 4


def test_the_same_samples_give_the_same_interval() -> None:
    samples = np.random.default_rng(3).lognormal(0, 1, 40).tolist()
    assert median_interval(samples) == median_interval(samples)
    wide, narrow = median_interval(samples, 0.99), median_interval(samples, 0.5)
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]
