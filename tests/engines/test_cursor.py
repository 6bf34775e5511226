"""The length of a KV cache. Most of it needs no engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.cursor import Cursor, SingleSlot
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError

# --- the cursor ----------------------------------------------------------------------------------


def filled(length: int, capacity: int = 16) -> Cursor:
    cursor = Cursor(capacity)
    with cursor.appending(length):
        pass
    return cursor


def test_positions_count_after_the_write() -> None:
    cursor = filled(3)
    with cursor.appending(2) as position:
        assert (position, cursor.length) == (3, 3)
    assert cursor.length == 5


@pytest.mark.parametrize("error", [EngineError, KeyboardInterrupt])
def test_a_write_that_fails_does_not_count(error: type[BaseException]) -> None:
    cursor = filled(3)
    with pytest.raises(error), cursor.appending(2):
        raise error
    assert cursor.length == 3


def test_a_full_cache() -> None:
    cursor = filled(14)
    written = False
    with (
        pytest.raises(EngineError, match=r"^17 tokens do not fit a cache of 16$"),
        cursor.appending(3),
    ):
        written = True
    assert (written, cursor.length) == (False, 14)
    with cursor.appending(2):
        pass
    assert cursor.length == cursor.capacity == 16


@pytest.mark.parametrize("length", [0, 4, 10])
def test_rewinding(length: int) -> None:
    cursor = filled(10)
    cursor.rewind(length)
    assert cursor.length == length


@pytest.mark.parametrize("length", [-1, 11])
def test_rewinding_to_where_nothing_is(length: int) -> None:
    cursor = filled(10)
    with pytest.raises(ValueError, match=f"^cannot rewind a cache of 10 to {length}$"):
        cursor.rewind(length)
    assert cursor.length == 10


@pytest.mark.parametrize(
    ("chunk", "sizes"),
    [(0, [10]), (1, [1] * 10), (4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (99, [10])],
)
def test_a_prompt_in_chunks(chunk: int, sizes: list[int]) -> None:
    cursor = filled(2)
    parts: list[np.ndarray] = []
    told: list[tuple[str, int, int]] = []

    def append(part: np.ndarray) -> int:
        with cursor.appending(len(part)) as position:
            assert position == 2 + sum(map(len, parts))
            parts.append(part)
        return len(parts)

    rows = np.arange(20).reshape(10, 2)
    last = cursor.prefill(rows, chunk, append, lambda *step: told.append(step))
    assert [len(part) for part in parts] == sizes
    assert np.array_equal(np.concatenate(parts), rows)
    assert told == [("prefill", size, 10) for size in (0, *sizes)]
    assert (last, cursor.length) == (len(sizes), 12)


def test_a_prompt_that_fails_midway_leaves_the_length() -> None:
    cursor = filled(9)

    def append(part: np.ndarray) -> None:
        with cursor.appending(len(part)):
            pass

    with pytest.raises(EngineError, match="18 tokens do not fit a cache of 16"):
        cursor.prefill(np.zeros((10, 2)), 3, append)
    assert cursor.length == 9
    with pytest.raises(ValueError, match="without rows"):
        cursor.prefill(np.zeros((0, 2)), 3, append)


@pytest.mark.parametrize("slot", [1, -1, np.array([0, 1])])
def test_an_engine_with_one_slot(slot: Any) -> None:
    engine = SingleSlot(16)
    assert engine.cursor(0) is engine.cursor(np.zeros(3, np.int64)) is engine.cursors[0]
    assert (engine.capacity, engine.length, len(engine.cursors)) == (16, 0, 1)
    with pytest.raises(ValueError, match="this engine has one slot, 0"):
        engine.cursor(slot)


def test_slots_of_a_real_engine(bundle: Path) -> None:
    engine = open_engine(open_bundle(bundle), EngineOptions(threads=1))
    rows = engine.rows(np.arange(5))
    engine.prefill(rows, slot=0)
    expected = engine.step(rows[:2]).copy()
    engine.rewind(5, slot=0)
    assert np.array_equal(engine.step(rows[:2], slot=np.zeros(2, np.int64)), expected)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: engine.prefill(rows, slot=1),
        lambda: engine.step(rows, slot=1),
        lambda: engine.choose(rows, slot=1),
        lambda: engine.rewind(0, slot=1),
        lambda: engine.reset(slot=1),
    )
    for call in calls:
        with pytest.raises(ValueError, match="one slot"):
            call()
    assert engine.length == engine.cursors[0].length == 7
    engine.reset(slot=0)
    assert engine.length == 0
