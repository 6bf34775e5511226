"""McNemar's test, identical answers and paired differences."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from pulse_edge.evaluate.ecgbench.compare import differences, identical_share, mcnemar
from pulse_edge.evaluate.ecgbench.reading import Paired
from pulse_edge.evaluate.ecgbench.run_file import AnswerLine
from pulse_edge.evaluate.scoring import rates, resamples


def outcomes(only_first: int, only_second: int, both: int = 3) -> tuple[list[bool], list[bool]]:
    first = [True] * (both + only_first) + [False] * only_second
    second = [True] * both + [False] * only_first + [True] * only_second
    return first, second


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (0, 6, 0.03125), (1, 9, 22 / 1024), (4, 4, 1.0)],
)
def test_mcnemar_is_exact(only_first: int, only_second: int, p: float) -> None:
    first, second = outcomes(only_first, only_second)
    tested = mcnemar(np.array(first), np.array(second))
    assert tested == {"only_first": only_first, "only_second": only_second, "p": p}


def test_mcnemar_of_thousands_of_items_is_finite() -> None:
    first, second = outcomes(1200, 1000)
    expected = 2 * sum(comb(2200, k) for k in range(1001)) / 2**2200
    assert mcnemar(np.array(first), np.array(second))["p"] == pytest.approx(expected)


def paired(texts: dict[str, str]) -> Paired:
    lines = [AnswerLine(name, text, None, False, (), {}) for name, text in texts.items()]
    return Paired("mmmu-ecg", (), lines)


def test_identical_answers_are_of_those_that_both_runs_have() -> None:
    first = paired({"a": "x", "b": "y", "c": "z"})
    second = paired({"c": "z", "b": "Y", "d": "x"})
    assert identical_share(first, second) == {"identical": 0.5, "answered_by_both": 2}
    nothing = identical_share(first, paired({}))
    assert nothing == {"identical": None, "answered_by_both": 0}


def test_the_interval_of_a_difference_is_of_pairs() -> None:
    weights = resamples(200)
    first = {"accuracy": rates(np.arange(200) % 2 == 0, weights)}
    second = {"accuracy": rates((np.arange(200) % 2 == 0) & (np.arange(200) > 9), weights)}
    change = differences(first, second)["accuracy"]
    assert change["value"] == pytest.approx(-5 / 200)
    low, high = change["interval"]
    assert -0.06 < low < -0.025 < high <= -0.005  # unpaired it would reach above 0
    assert differences(first, first)["accuracy"] == {"value": 0.0, "interval": (0.0, 0.0)}
