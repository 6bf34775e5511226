"""The length of a KV cache, and which engine opens a bundle: what needs no engine to test."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pulse_edge.engines.onnxruntime as built_in
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.engines.cursor import Cursor, SingleSlot
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import choose_engine, open_engine
from pulse_edge.engines.table import (
    BUILT_IN,
    DEVICES,
    ENGINES,
    GROUP,
    EngineRow,
    engine_names,
    find_engine,
    list_engines,
)
from pulse_edge.errors import EngineError, ParameterError

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


# --- the table -----------------------------------------------------------------------------------


def test_the_built_in_engines() -> None:
    assert ENGINES == ("auto", "onnxruntime", "tensorrt")
    assert engine_names()[: len(ENGINES)] == ENGINES
    assert list_engines()[: len(BUILT_IN)] == BUILT_IN
    for row in BUILT_IN:
        assert find_engine(row.name) is row
        assert {device for _, device in row.runs} <= set(DEVICES)
        assert callable(__import__(row.module, fromlist=["open_engine"]).open_engine)


@pytest.mark.parametrize(
    ("target", "device", "engine", "chosen"),
    [
        ("cpu", "auto", "auto", ("onnxruntime", "cpu")),
        ("cpu", "cpu", "onnxruntime", ("onnxruntime", "cpu")),
        ("cuda", "auto", "auto", ("onnxruntime", "cuda")),
        ("cuda", "cpu", "auto", ("onnxruntime", "cpu")),
        ("standard", "auto", "auto", ("tensorrt", "cuda")),
        ("standard", "cuda", "auto", ("tensorrt", "cuda")),
        ("standard", "cpu", "auto", ("onnxruntime", "cpu")),
        ("standard", "auto", "onnxruntime", ("onnxruntime", "cpu")),
        ("standard", "auto", "tensorrt", ("tensorrt", "cuda")),
    ],
)
def test_what_runs_a_target(
    bundle: Path,
    target: str,
    device: str,
    engine: str,
    chosen: tuple[str, str],
) -> None:
    row, on = choose_engine(exported_for(target, bundle), EngineOptions(device, engine=engine))
    assert (row.name, on) == chosen


@pytest.mark.parametrize(
    ("target", "device", "engine", "message"),
    [
        ("cpu", "cuda", "auto", "does not run on cuda; .*--target cuda, or use --device cpu$"),
        ("cpu", "auto", "tensorrt", "which engine tensorrt does not run; use --engine auto$"),
        ("standard", "cpu", "tensorrt", "tensorrt does not run on cpu; use --device cuda$"),
        (
            "tpu",
            "auto",
            "auto",
            "which no engine runs in this .* --target cpu or cuda or standard$",
        ),
    ],
)
def test_what_nothing_runs(
    bundle: Path,
    target: str,
    device: str,
    engine: str,
    message: str,
) -> None:
    with pytest.raises(EngineError, match=f"was exported for {target}.*{message}"):
        choose_engine(exported_for(target, bundle), EngineOptions(device, engine=engine))


def exported_for(target: Any, path: Path) -> Bundle:
    opened = open_bundle(path)
    return replace(opened, manifest=replace(opened.manifest, target=target))


def test_unknown_values() -> None:
    with pytest.raises(EngineError, match=r"^device 'npu' is not one of auto, cpu, cuda$"):
        EngineOptions("npu")
    with pytest.raises(ParameterError, match=r"^engine 'x' is not one of auto, onnxruntime, tens"):
        EngineOptions(engine="x")


# --- engines of other packages -------------------------------------------------------------------

# What entry points name: a good row, one of another name, one whose module is missing.
OTHER = EngineRow("other", built_in.__name__, (("cpu", "cpu"),))
MISNAMED = EngineRow("another", built_in.__name__, (("cpu", "cpu"),))
MISSING = EngineRow("missing", "no_such_module_here", (("cpu", "cpu"),))


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Packages with entry points: `points` by name."""
    world = SimpleNamespace(points={}, lookups=0)

    def entry_points(group: str) -> list[EntryPoint]:
        assert group == GROUP == "pulse_edge.engines"
        world.lookups += 1
        return [EntryPoint(name, value, group) for name, value in world.points.items()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return world


def test_an_engine_of_another_package(bundle: Path, installed: SimpleNamespace) -> None:
    installed.points = {"other": "test_cursor:OTHER", "onnxruntime": "test_cursor:MISSING"}
    opened = open_bundle(bundle)
    for name in ("auto", "onnxruntime"):
        open_engine(opened, EngineOptions(threads=1, engine=name))
    assert installed.lookups == 0, "a name in the table needs no other packages"
    assert engine_names() == (*ENGINES, "other")
    assert find_engine("other").name == list_engines()[-1].name == "other"
    engine = open_engine(opened, EngineOptions(threads=1, engine="other"))
    assert engine.describe()["device"] == "cpu"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("no_such_module_here:ROW", "'bad' cannot be loaded .*ModuleNotFoundError.*uninstall"),
        ("test_cursor:NO_SUCH_ROW", "'bad' cannot be loaded .*AttributeError"),
        ("test_cursor:MISNAMED", "'bad': test_cursor:MISNAMED is not an EngineRow of that name"),
        ("test_cursor:filled", "'bad': test_cursor:filled is not an EngineRow"),
    ],
)
def test_a_broken_package(
    bundle: Path,
    installed: SimpleNamespace,
    value: str,
    message: str,
) -> None:
    installed.points = {"bad": value}
    assert engine_names() == (*ENGINES, "bad")
    for use in (
        lambda: open_engine(open_bundle(bundle), EngineOptions(engine="bad")),
        list_engines,
    ):
        with pytest.raises(EngineError, match=f"engine {message}"):
            use()
    open_engine(open_bundle(bundle), EngineOptions(threads=1))  # which others do not disturb


def test_an_engine_whose_module_is_missing(bundle: Path, installed: SimpleNamespace) -> None:
    installed.points = {"missing": "test_cursor:MISSING"}
    with pytest.raises(EngineError, match=r"engine 'missing' cannot be loaded .*no_such_module"):
        open_engine(open_bundle(bundle), EngineOptions(engine="missing"))
