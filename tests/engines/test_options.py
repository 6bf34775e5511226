"""Options of every engine: their ranges, before anything is allocated."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pulse_edge.engines.options import MOST_SLOTS, MOST_TOKENS, EngineOptions
from pulse_edge.errors import ParameterError
from pulse_edge.system import most_threads

BAD = (-1, -(10**30), 10**30, 1.0, 0.5, float("inf"), float("nan"), "1", True, b"1", (1,))


@pytest.mark.parametrize("name", ["threads", "context", "prefill_chunk", "slots"])
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_value_that_is_no_number_in_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=rf"{name} is .+, but must be a whole number from \d"):
        EngineOptions(**{name: value})


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("context", 1, MOST_TOKENS), ("prefill_chunk", 0, MOST_TOKENS)],
)
def test_the_ends_of_a_range_are_legal(name: str, least: int, most: int) -> None:
    value: Any
    for value in (least, most, None):
        assert getattr(EngineOptions(**{name: value}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(ParameterError, match=f"from {least} to {most}"):
            EngineOptions(**{name: value})


@pytest.mark.parametrize("cores", [1, 2, 16, 17, 256])
def test_threads_are_capped(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert EngineOptions(threads=most_threads()).threads == max(64, 4 * cores)
    with pytest.raises(ParameterError, match=f"from 0 to {max(64, 4 * cores)}"):
        EngineOptions(threads=most_threads() + 1)
    with pytest.raises(ParameterError, match="threads is None"):
        EngineOptions(threads=None)  # type: ignore[arg-type]


def test_slots_have_a_range() -> None:
    assert EngineOptions().slots == 1
    for value in (1, 2, MOST_SLOTS):
        assert EngineOptions(slots=value).slots == value
    unset: Any = None
    for value in (0, MOST_SLOTS + 1, unset):
        with pytest.raises(ParameterError, match=f"slots is {value}, .* from 1 to {MOST_SLOTS}"):
            EngineOptions(slots=value)
