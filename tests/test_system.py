"""What the OS tells about the machine, and what it does not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pulse_edge import system
from pulse_edge.measure import peaks


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


@pytest.mark.parametrize(
    ("cores", "most"), [(None, 64), (1, 64), (2, 64), (16, 64), (17, 68), (256, 1024)]
)
def test_the_most_threads_follow_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, most: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert system.most_threads() == most


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


X86 = "model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\n"
ARM = "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n"


@pytest.mark.parametrize(
    ("info", "cpu"),
    [
        (X86, {"family": "25", "model": "17", "stepping": "1"}),
        (ARM, {"family": "8", "model": "0xd42", "stepping": "1"}),
        ("model name\t: odd\n", None),
        (None, None),
    ],
)
def test_what_tells_processors_of_one_name_apart(
    monkeypatch: pytest.MonkeyPatch, info: str | None, cpu: dict[str, str] | None
) -> None:
    real = system.read_file
    monkeypatch.setattr(
        system, "read_file", lambda path: info if path == Path("/proc/cpuinfo") else real(path)
    )
    assert system.describe()["cpu"] == cpu
