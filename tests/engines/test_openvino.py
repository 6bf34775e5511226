"""What engine openvino does without OpenVINO: its record of rows, and why it cannot run.

`tests/parity/test_openvino.py` runs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines.openvino_library import load_openvino
from pulse_edge.engines.openvino_rows import MOST_FORGOTTEN, CachedRows, rows_together
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError

NO = -np.inf


# --- which rows there are -------------------------------------------------------------------------


def test_new_rows_see_the_sequence_and_each_other() -> None:
    rows = CachedRows(8)
    assert rows.mask(2).tolist() == [[[[0, NO], [0, 0]]]]
    rows.append(2)
    assert rows.mask(1).tolist() == [[[[0, 0, 0]]]]
    assert rows.mask(3)[0, 0].tolist() == [
        [0, 0, 0, NO, NO],
        [0, 0, 0, 0, NO],
        [0, 0, 0, 0, 0],
    ]


def test_forgotten_rows_stay_and_are_hidden() -> None:
    rows = CachedRows(8)
    rows.append(4)
    rows.forget(1)
    assert (rows.total, rows.forgotten) == (4, 3)
    rows.append(2)
    assert rows.kept().tolist() == [0, 4, 5]
    assert rows.mask(1).tolist() == [[[[0, NO, NO, NO, 0, 0, 0]]]]
    rows.forget(2)
    assert rows.kept().tolist() == [0, 4]
    rows.together(2)
    assert (rows.total, rows.forgotten) == (2, 0)
    rows.append(3)
    assert rows.mask(1).tolist() == [[[[0] * 6]]]


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_appending_and_forgetting(seed: int) -> None:
    """What is kept is the sequence, whatever happened before."""
    random = np.random.default_rng(seed)
    rows = CachedRows(50)
    places: list[int] = []
    for _ in range(200):
        count = int(random.integers(1, 9))
        if rows.total + count > rows.most or len(places) + count > 50:
            if random.random() < 0.5:
                rows.together(len(places))
                places = list(range(len(places)))
            length = int(random.integers(0, len(places) + 1)) if places else 0
            rows.forget(length)
            places = places[:length]
            if rows.total + count > rows.most:
                continue
        places += range(rows.total, rows.total + count)
        rows.append(count)
        assert rows.kept().tolist() == places
        assert rows.forgotten == rows.total - len(places)


@pytest.mark.parametrize(("capacity", "most"), [(1, 2), (512, 1024), (4096, 4096 + MOST_FORGOTTEN)])
def test_how_many_rows_there_may_be(capacity: int, most: int) -> None:
    assert CachedRows(capacity).most == most


def test_rows_are_copied_together() -> None:
    state = np.arange(2 * 5 * 3, dtype=np.float32).reshape(1, 2, 5, 3)
    got = rows_together(state, np.array([0, 3, 4]))
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, state[:, :, [0, 3, 4]])


# --- why it cannot run ----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def loaded_anew() -> Iterator[None]:
    load_openvino.cache_clear()
    yield
    load_openvino.cache_clear()


def opened(bundle: Path, **options: Any) -> None:
    open_engine(open_bundle(bundle), EngineOptions(engine="openvino", **options))


def test_without_the_package(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        EngineError, match=r"not installed .*; pip install 'pulse-edge\[openvino\]'$"
    ):
        opened(bundle)


@pytest.mark.parametrize(
    ("version", "core", "message"),
    [
        ("2025.4.1-20426-82bbf0292c5", True, r"^OpenVINO 2025\.4\.1 is too old, .*'openvino>=2026"),
        ("2026.3.0", True, r"^OpenVINO 2026\.3\.0 is too old"),
        ("2026.4.1", False, "its files are not; install it again"),
    ],
)
def test_a_package_that_is_not_the_right_one(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, version: str, core: bool, message: str
) -> None:
    for name in ("openvino", "openvino.op", "openvino.op.util", "openvino.opset13"):
        module = ModuleType(name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    package: Any = sys.modules["openvino"]
    package.__version__ = version
    if core:
        package.Core = object
    with pytest.raises(EngineError, match=message):
        opened(bundle)


@pytest.mark.parametrize("before", [None, "yes"])
def test_what_silences_it_is_taken_back(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CI` would concern the user's own program."""
    monkeypatch.delenv("CI", raising=False)
    if before is not None:
        monkeypatch.setenv("CI", before)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="not installed"):
        load_openvino()
    assert os.environ.get("CI") == before


def test_a_bundle_with_two_sets_of_weights(bundle: Path) -> None:
    """Its prompts would be another model's."""
    plain = open_bundle(bundle)
    precision = replace(plain.manifest.precision, prefill="w8a8")
    both = replace(plain, manifest=replace(plain.manifest, precision=precision))
    with pytest.raises(EngineError, match=r"for prompts.*--engine onnxruntime, or export .*--pref"):
        open_engine(both, EngineOptions(engine="openvino"))


def test_several_slots(bundle: Path) -> None:
    with pytest.raises(EngineError, match="2 slots, but engine openvino has one"):
        opened(bundle, slots=2)
