"""The area under the ROC curve, by counting pairs."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pulse_edge.evaluate.ecgbench.option_scores import area


@pytest.mark.parametrize("seed", range(20))
def test_the_area_is_the_share_of_pairs_in_order(seed: int) -> None:
    draw = random.Random(seed)
    scores = [draw.choice([0.0, 0.5, 1.0, draw.random()]) for _ in range(30)]
    positive = [True, False, *(draw.random() < 0.4 for _ in range(28))]
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, hit in zip(scores, positive, strict=True)
        for b, other in zip(scores, positive, strict=True)
        if hit and not other
    ]
    expected = sum(pairs) / len(pairs)
    assert area(np.array(scores), np.array(positive)) == pytest.approx(expected)


def test_one_class_has_no_area() -> None:
    assert np.isnan(area(np.array([1.0, 2.0]), np.array([True, True])))
