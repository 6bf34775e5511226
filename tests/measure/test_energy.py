"""Energy from meters that tests fake: RAPL's and INA3221's files, and NVML's module."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pulse_edge.measure.energy import EnergyLog, RailMeter, RaplMeter, find_meters


def zone(folder: Path, name: str, title: str, counter: int, wrap: int = 1_000_000) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    for file, text in (("name", title), ("energy_uj", counter), ("max_energy_range_uj", wrap)):
        (path / file).write_text(f"{text}\n")
    return path


def rails(folder: Path, name: str, *channels: tuple[str, int, int]) -> Path:
    """An INA3221 with these labels, mV and mA."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "name").write_text("ina3221\n")
    for number, (label, millivolts, milliamperes) in enumerate(channels, 1):
        (path / f"in{number}_label").write_text(f"{label}\n")
        (path / f"in{number}_input").write_text(f"{millivolts}\n")
        (path / f"curr{number}_input").write_text(f"{milliamperes}\n")
    (path / "in7_label").write_text("sum of shunt voltages\n")
    return path


class Nvml:
    """NVML of one GPU that has used 5 J, and uses 1.5 J between two readings."""

    def __init__(self, counts: bool = True, present: bool = True) -> None:
        self.counts, self.present = counts, present
        self.millijoules = 5000
        self.asked: list[Any] = []
        self.open = 0

    def nvmlInit(self) -> None:
        if not self.present:
            raise RuntimeError("NVML Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        self.asked.append(index)
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetName(self, handle: Any) -> bytes:
        return b"NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        if not self.counts:
            raise RuntimeError("Not Supported")
        self.millijoules += 1500
        return self.millijoules


def test_rapl_counts_and_wraps(tmp_path: Path) -> None:
    path = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    meter = RaplMeter(path)
    assert (meter.name, meter.joules()) == ("package-0", 0)
    (path / "energy_uj").write_text("950000")
    assert meter.joules() == pytest.approx(0.05)
    (path / "energy_uj").write_text("100000")  # by way of 1,000,000
    assert meter.joules() == pytest.approx(0.2)


def test_a_rail_s_power_is_added_up(tmp_path: Path) -> None:
    chip = rails(tmp_path, "hwmon3", ("VDD_IN", 5000, 2000))
    now = [10.0]
    meter = RailMeter(chip, 1, lambda: now[0])
    meter.close()
    start = meter.joules()
    now[0] = 13.0
    assert meter.joules() - start == pytest.approx(30)  # 10 W for 3 s
    (chip / "curr1_input").write_text("4000")
    now[0] = 15.0
    assert meter.joules() - start == pytest.approx(60)  # 10 to 20 W in 2 s


def test_a_rail_is_read_while_nobody_asks(tmp_path: Path) -> None:
    meter = RailMeter(rails(tmp_path, "hwmon0", ("VDD_IN", 5000, 2000)), 1)
    time.sleep(0.1)
    first = meter.joules()
    meter.close()
    assert 0.9 < first < 600  # 10 W for 0.1 s, or as long as a busy machine took


def test_meters_that_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    powercap, hwmon = tmp_path / "powercap", tmp_path / "hwmon"
    zone(powercap, "intel-rapl:0", "package-0", 1)
    zone(powercap, "intel-rapl:0:0", "core", 1)  # a part of the package
    zone(powercap, "intel-rapl:0:1", "dram", 1)  # not a part of it
    zone(powercap, "intel-rapl:1", "package-1", 1)
    (zone(powercap, "intel-rapl:2", "psys", 1) / "energy_uj").unlink()  # as if for root only
    zone(powercap, "intel-rapl-mmio:0", "package-0", 1)  # the same counter again
    rails(hwmon, "hwmon1", ("VDD_GPU_SOC", 5000, 100), ("NC", 0, 0), ("VIN_SYS_5V0", 5000, 300))
    rails(hwmon, "hwmon2", ("VDD_IN", 5000, 100))
    (hwmon / "hwmon2/name").write_text("coretemp\n")
    meters = find_meters("cuda", powercap, hwmon, Nvml())
    try:
        names = [meter.name for meter in meters]
        assert names[:3] == ["package-0", "dram", "package-1"]
        assert names[3:] == ["VDD_GPU_SOC", "VIN_SYS_5V0", "NVIDIA H100 80GB HBM3"]
    finally:
        for meter in meters:
            meter.close()


def test_a_machine_without_meters(tmp_path: Path) -> None:
    assert find_meters("cpu", tmp_path / "none", tmp_path / "none", Nvml()) == []
    assert find_meters("cuda", tmp_path, tmp_path, Nvml(present=False)) == []
    old = Nvml(counts=False)
    assert find_meters("cuda", tmp_path, tmp_path, old) == []
    assert old.open == 0


@pytest.mark.parametrize(
    ("visible", "asked"),
    [("", 0), ("2", 2), ("1,0", 1), ("GPU-8932f937", "GPU-8932f937"), (" 3 ,1", 3)],
)
def test_the_first_visible_gpu_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, asked: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = Nvml()
    (meter,) = find_meters("cuda", tmp_path, tmp_path, nvml)
    assert nvml.asked == [asked]
    assert meter.joules() == 1.5
    meter.close()
    assert nvml.open == 0


def test_joules_of_answers_and_tokens() -> None:
    closed: list[str] = []
    meters: list[Any] = [
        SimpleNamespace(name=name, source="test", joules=lambda: 0.0, close=closed.append)
        for name in ("gpu", "cpu")
    ]
    log = EnergyLog(meters)
    assert log.record() == []
    log.add([10, 1], [16, 2], [20, 3], tokens=8, seconds=2)
    log.add([30, 5], [34, 5], [50, 7], tokens=12, seconds=3)
    gpu, cpu = log.record()
    assert gpu == {
        "meter": "gpu",
        "source": "test",
        "answers": 2,
        "joules_per_answer": 15,  # (10 + 20) / 2
        "joules_per_token": 1,  # (4 + 16) / 20
        "watts": 6,  # 30 / 5
    }
    assert (cpu["joules_per_answer"], cpu["joules_per_token"]) == (2, 0.15)
