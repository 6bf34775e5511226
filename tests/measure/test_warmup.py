"""Warm-ups end when repetitions have become stable, or patience has."""

from __future__ import annotations

import pytest

from pulse_edge.measure.warmup import is_stable, is_warm


@pytest.mark.parametrize(
    ("seconds", "least", "most", "warm"),
    [
        ([], 0, 5, True),
        ([], 1, 5, False),
        ([1.0], 1, 5, False),
        ([1.0], 1, 1, True),
        ([2.0, 1.0], 1, 5, False),
        ([2.0, 1.0, 1.04], 1, 5, True),
        ([2.0, 1.0, 0.96], 1, 5, True),
        ([2.0, 1.0, 0.9], 1, 5, False),
        ([1.0, 1.0], 3, 5, False),
        ([1.0, 1.0, 1.0], 3, 5, True),
        ([5.0, 4.0, 3.0, 2.0, 1.0], 1, 5, True),
        ([5.0, 4.0, 3.0], 3, 2, True),
        ([31.0], 1, 5, True),
        ([16.0, 8.0], 1, 5, False),
        ([16.0, 8.0, 7.0], 1, 5, True),
    ],
)
def test_when_a_warm_up_ends(seconds: list[float], least: int, most: int, warm: bool) -> None:
    assert is_warm(seconds, least, most) is warm


def test_stable_are_two_that_take_as_long() -> None:
    assert not is_stable([1.0])
    assert is_stable([9.0, 1.0, 1.0])
    assert not is_stable([1.0, 1.0, 1.06])
