"""Goodput at an SLO, as vLLM defines it."""

from __future__ import annotations

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.measure.goodput import goodput, objectives

SAMPLES = {
    "ttft_cold": [1.0, 2.0, 3.0, 4.0],
    "tpot": [0.05, 0.05, 0.2, 0.05],
    "e2e": [2.0, 3.0, 8.0, 7.0],  # 20 s in all
}


@pytest.mark.parametrize(
    ("texts", "good"),
    [
        (["ttft:1000"], 1),
        (["ttft:999.9"], 0),
        (["ttft:2500"], 2),
        (["ttft:1e6"], 4),
        (["tpot:100"], 3),
        (["e2el:7000"], 3),
        (["ttft:3500", "tpot:100"], 2),
        (["ttft:3500 tpot:100"], 2),
        (["ttft:3500,tpot:100,e2el:2500"], 1),
    ],
)
def test_answers_within_all_objectives_count(texts: list[str], good: int) -> None:
    slo = objectives(texts)
    found = goodput(SAMPLES, slo)
    assert found == {
        "objectives_ms": slo,
        "requests": 4,
        "good": good,
        "requests_per_s": good / 20,
    }


def test_without_objectives_or_requests_there_is_none() -> None:
    assert objectives([]) == {}
    assert goodput(SAMPLES, {}) is None
    assert goodput({}, {"ttft": 1.0}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("itl:5", "one of ttft, tpot, e2el"),
        ("ttft", "'ttft', but its limit must be milliseconds above 0"),
        ("ttft:", "milliseconds above 0"),
        ("ttft:fast", "milliseconds above 0"),
        ("ttft:0", "milliseconds above 0"),
        ("ttft:-1", "milliseconds above 0"),
        ("ttft:nan", "milliseconds above 0"),
        ("ttft:inf", "milliseconds above 0"),
        ("3000", "METRIC:MILLISECONDS"),
        ("ttft:1,ttft:2", "names ttft twice"),
    ],
)
def test_objectives_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        objectives([text])
