"""What the OS tells about the machine, and what it does not; the peaks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
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

    monkeypatch.setattr(system.subprocess, "run", run)
    assert peaks.measure_peaks(3) is None
    command, env = asked[0]
    assert command[-2:] == ["3", "0"]
    assert {
        env[name] for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    } == {"3"}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four cores of two threads each; the process may use three, of one only half."""
    for cpu in range(8):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(
            f"{cpu % 4},{cpu % 4 + 4}\n"
        )
    monkeypatch.setattr(system, "CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5})
    assert (system.physical_cores(), system.usable_cores()) == (3, 5)
    cache = tmp_path / "cpu0/cache"
    for number, size in enumerate(("32K", "1024K", "32M")):
        (cache / f"index{number}").mkdir(parents=True)
        (cache / f"index{number}/size").write_text(f"{size}\n")
    assert system.last_level_cache() == 32 << 20


def test_a_machine_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system, "read_file", lambda _: None)
    monkeypatch.setattr(system, "CPUS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    there = system.describe()
    assert there["cores"] >= 1
    assert there["simd"] == []
    assert {
        there[key] for key in ("last_level_cache", "governor", "clock_now", "power_mode", "gpu")
    } == {None}
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert peaks.measure_peaks(1, quick=True) is None


def test_clocks_and_power_mode_where_they_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu0/cpufreq").mkdir(parents=True)
    for name, text in (
        ("scaling_governor", "schedutil\n"),
        ("scaling_cur_freq", "1510400\n"),
        ("cpuinfo_max_freq", "x"),
    ):
        (tmp_path / "cpu0/cpufreq" / name).write_text(text)
    (tmp_path / "nvpmodel").write_text("#!/bin/sh\necho NV Power Mode: 25W; echo 1\n")
    (tmp_path / "nvpmodel").chmod(0o755)
    monkeypatch.setattr(system, "CPUS", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    power = system.power()
    assert (power["governor"], power["clock_now"], power["clock_max"]) == ("schedutil", 1510, None)
    assert power["power_mode"] == "NV Power Mode: 25W 1"


def test_memory_of_a_gpu_by_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert system.device_memory(7) is None or system.command_output("nvidia-smi")
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho 17, 900; echo 7, 300; echo 7, 50; echo 9, [N/A]\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [system.device_memory(pid) for pid in (7, 17, 9, 1)] == [
        350 << 20,
        900 << 20,
        None,
        None,
    ]
