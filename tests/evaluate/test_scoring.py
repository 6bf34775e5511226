"""Bootstrap intervals from a fixed table of draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pulse_edge.evaluate.scoring import percentiles, rates, resamples


@pytest.mark.parametrize("items", [1, 2, 7, 50, 500])
def test_every_draw_has_as_many_items_as_the_sample(items: int) -> None:
    weights = resamples(items, 200)
    assert weights.shape == (201, items)
    assert (weights.sum(axis=1) == items).all()
    assert (weights[0] == 1).all()


def test_items_are_drawn_as_often_as_chance_has_it() -> None:
    drawn = resamples(100, 2000)[1:]
    assert drawn.var() == pytest.approx(0.99, abs=0.02)  # of a binomial
    assert drawn.sum(axis=0).std() == pytest.approx(math.sqrt(2000 * 0.99), rel=0.2)
    assert len(np.unique(drawn, axis=0)) == 2000


@pytest.mark.parametrize(("right", "items"), [(50, 100), (90, 100), (400, 500), (5, 500)])
def test_the_interval_of_a_share_is_the_normal_one(right: int, items: int) -> None:
    hits = np.arange(items) < right
    share = right / items
    error = 1.96 * math.sqrt(share * (1 - share) / items)
    ends = percentiles(rates(hits, resamples(items)))
    assert ends == pytest.approx((share - error, share + error), abs=0.2 * error)


def test_a_figure_that_no_draw_has_has_no_interval() -> None:
    assert percentiles(np.array([np.nan, np.nan])) is None
    assert percentiles(np.array([np.nan, 0.25])) == (0.25, 0.25)
