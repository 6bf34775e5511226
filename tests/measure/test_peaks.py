"""The peaks that a CPU reaches."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import onnx
import pytest

from pulse_edge import system
from pulse_edge.measure import peaks


def test_peaks_and_machine() -> None:
    there = system.describe()
    assert 1 <= there["cores"] <= there["usable_cores"] <= there["logical_cores"]
    found = peaks.measure_peaks(2, quick=True)
    assert found is not None
    assert found.threads == 2
    assert 1e8 < found.read < 1e13  # a spinning disk and the fastest HBM lie outside
    assert set(found.gemm) == set(found.gemm_library) == {"fp32", "int8"}
    assert all(1e8 < gemm < 1e15 for gemm in found.gemm.values())
    assert found.read_buffer > (there["last_level_cache"] or 0)


MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("quick", "cache", "memory", "expected"),
    [
        (True, None, None, 64 * MIB),
        (True, 32 * MIB, 16 * GIB, 64 * MIB),
        (True, 33 * MIB, 16 * GIB, 66 * MIB),
        (True, 260 * MIB, 128 * GIB, 520 * MIB),
        (True, 260 * MIB, 1 * GIB, 256 * MIB),  # a quarter of the memory at most
        (False, None, None, 256 * MIB),
        (False, 32 * MIB, 16 * GIB, 256 * MIB),
        (False, 260 * MIB, 128 * GIB, 2080 * MIB),
        (False, 260 * MIB, 4 * GIB, 1 * GIB),
    ],
)
def test_the_read_buffer_is_larger_than_the_cache(
    quick: bool, cache: int | None, memory: int | None, expected: int
) -> None:
    assert peaks.read_buffer_size(quick, cache, memory) == expected


def test_peaks_where_the_cache_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (system, peaks):
        monkeypatch.setattr(module, "last_level_cache", lambda: 80 << 20)
        monkeypatch.setattr(module, "memory", lambda: 1 << 40)
    monkeypatch.setattr(peaks, "int8_product", lambda *_: (None, ""))
    found = peaks.peaks_of_this_process(2, quick=True)
    assert found.read_buffer == 160 << 20
    assert found.read_buffer > (system.describe()["last_level_cache"] or 0)


def test_the_int8_peak_is_of_a_product_of_bytes() -> None:
    """The model written by hand is valid ONNX and gives the exact product."""
    right = np.ones((3, 300), np.int8)  # a length of more than one byte
    onnx.checker.check_model(onnx.load_from_string(peaks.product_graph(right)), full_check=True)
    multiply, library = peaks.int8_product(1, 48)
    assert multiply is not None
    assert library.startswith("ONNX Runtime")
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (48, 48), np.uint8), rng.integers(-64, 64, (48, 48), np.int8)
    np.testing.assert_array_equal(multiply(), left.astype(np.int32) @ right.astype(np.int32))


def test_peaks_are_measured_with_as_many_threads_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> None:
        asked.append((command, env))
        raise OSError

    monkeypatch.setattr(subprocess, "run", run)
    assert peaks.measure_peaks(3) is None
    command, env = asked[0]
    assert command[-2:] == ["3", "0"]
    assert {
        env[name] for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    } == {"3"}
