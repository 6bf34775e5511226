"""Energy of requests, where the device tells it.

Three kinds of meters: NVML's counter of an NVIDIA GPU (package nvidia-ml-py), the INA3221 rails of
a Jetson in sysfs, and RAPL's counters of x86 processors in powercap. All of them count the whole
part, with its idle power and with other processes; nothing is subtracted.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pulse_edge.system import read_file

POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
INTERVAL = 0.02  # seconds between readings of a rail's power


class EnergyMeter(Protocol):
    """Counts joules of one part of a device.

    Attributes:
        name: of the part.
        source: where the figure comes from.
    """

    name: str
    source: str

    def joules(self) -> float:
        """Since the meter was made."""
        ...

    def close(self) -> None:
        """Stop counting."""
        ...


class RaplMeter:
    """A zone of powercap, whose counter wraps around at `max_energy_range_uj`."""

    def __init__(self, zone: Path) -> None:
        """`zone`: its folder. Raises `OSError` or `ValueError` if it may not be read."""
        self.name = read_file(zone / "name") or zone.name
        self.source = f"RAPL, {zone}"
        self._counter = zone / "energy_uj"
        self._range = int(read_file(zone / "max_energy_range_uj") or 0)
        self._last = int(self._counter.read_text())
        self._total = 0

    def joules(self) -> float:
        """Since the meter was made. Read it more often than the counter wraps, some minutes."""
        now = int(self._counter.read_text())
        self._total += now - self._last + (self._range if now < self._last else 0)
        self._last = now
        return self._total / 1e6

    def close(self) -> None:
        """Nothing runs."""


class RailMeter:
    """A rail of an INA3221, which tells volts and amperes: a thread adds up their product."""

    def __init__(
        self, chip: Path, channel: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Begin to count.

        Args:
            chip: its folder in hwmon.
            channel: its number there, from 1.
            clock: seconds.

        Raises:
            OSError: the rail cannot be read.
            ValueError: likewise.
        """
        self.name = read_file(chip / f"in{channel}_label") or f"rail {channel}"
        self.source = f"INA3221, {chip}"
        self._volts = chip / f"in{channel}_input"  # mV
        self._amperes = chip / f"curr{channel}_input"  # mA
        self._clock = clock
        self._lock = threading.Lock()
        self._total = 0.0
        self._at, self._watts = clock(), self._power()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Since the meter was made, by the trapezoidal rule."""
        with self._lock:
            now = self._clock()
            watts = self._power()
            self._total += (now - self._at) * (watts + self._watts) / 2
            self._at, self._watts = now, watts
            return self._total

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()

    def _power(self) -> float:
        return int(self._volts.read_text()) * int(self._amperes.read_text()) / 1e6

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL):
            with suppress(OSError, ValueError):  # a reading that failed is made up by the next
                self.joules()


class NvmlMeter:
    """NVML's counter of a GPU (Volta and later), in millijoules."""

    def __init__(self, nvml: Any, gpu: str) -> None:
        """Begin to count.

        Args:
            nvml: the module `pynvml`, initialized.
            gpu: index or UUID. What NVML raises for it passes through.
        """
        by_uuid = not gpu.isdigit()
        self._nvml = nvml
        self._handle = (
            nvml.nvmlDeviceGetHandleByUUID(gpu)
            if by_uuid
            else nvml.nvmlDeviceGetHandleByIndex(int(gpu))
        )
        name = nvml.nvmlDeviceGetName(self._handle)
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.source = "NVML, total energy"
        self._first = self._count()

    def joules(self) -> float:
        """Since the meter was made."""
        return (self._count() - self._first) / 1000

    def close(self) -> None:
        """Let go of the library."""
        self._nvml.nvmlShutdown()

    def _count(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def find_meters(
    device: str, powercap: Path = POWERCAP, hwmon: Path = HWMON, nvml: Any = None
) -> list[EnergyMeter]:
    """All meters of this machine that can be read; none is no error.

    Args:
        device: what the engine runs on; a GPU's meter counts only if it is "cuda".
        powercap: folder of RAPL's zones.
        hwmon: folder of the hardware monitors.
        nvml: the module `pynvml`; None imports it if it is installed.
    """
    meters: list[EnergyMeter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if ":" not in zone.name.partition(":")[2] or read_file(zone / "name") == "dram":
            with suppress(OSError, ValueError):
                meters.append(RaplMeter(zone))
    for chip in sorted(hwmon.glob("hwmon*")):
        if read_file(chip / "name") == "ina3221":
            for channel in _rails(chip):
                with suppress(OSError, ValueError):
                    meters.append(RailMeter(chip, channel))
    if device == "cuda":
        meters += _gpu_meters(nvml)
    return meters


def _rails(chip: Path) -> Iterator[int]:
    """Channels that have a current. The chip also reports sums, which would count twice."""
    for channel in range(1, 4):
        label = read_file(chip / f"in{channel}_label") or ""
        if (chip / f"curr{channel}_input").exists() and label not in ("NC", ""):
            yield channel


def _gpu_meters(nvml: Any) -> list[EnergyMeter]:
    """Of the first visible GPU, which is the one that an engine takes."""
    try:
        nvml = nvml or importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # not installed, or no driver: NVMLError is not importable then
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"
    try:
        return [NvmlMeter(nvml, visible)]
    except Exception:  # a GPU without the counter
        nvml.nvmlShutdown()
        return []


class EnergyLog:
    """Joules of requests by meter: of their first token, and of what follows it."""

    def __init__(self, meters: Sequence[EnergyMeter]) -> None:
        """`meters`: which it closes in the end."""
        self._meters = meters
        self._answers = 0
        self._tokens = 0
        self._seconds = 0.0
        self._whole = [0.0] * len(meters)
        self._after_first = [0.0] * len(meters)

    def read(self) -> list[float]:
        """Joules of each meter now."""
        return [meter.joules() for meter in self._meters]

    def add(
        self,
        begin: Sequence[float],
        first: Sequence[float],
        end: Sequence[float],
        tokens: int,
        seconds: float,
    ) -> None:
        """Add one answer.

        Args:
            begin: what `read` gave when it was asked.
            first: at its first token.
            end: at its last.
            tokens: after the first.
            seconds: from begin to end.
        """
        self._answers += 1
        self._tokens += tokens
        self._seconds += seconds
        for i in range(len(self._meters)):
            self._whole[i] += end[i] - begin[i]
            self._after_first[i] += end[i] - first[i]

    def record(self) -> list[dict[str, Any]]:
        """JSON-ready, a row for each meter; none without an answer."""
        if not self._answers:
            return []
        return [
            {
                "meter": meter.name,
                "source": meter.source,
                "answers": self._answers,
                "joules_per_answer": float(f"{self._whole[i] / self._answers:.6g}"),
                "joules_per_token": float(f"{self._after_first[i] / self._tokens:.6g}"),
                "watts": float(f"{self._whole[i] / self._seconds:.6g}"),
            }
            for i, meter in enumerate(self._meters)
        ]

    def close(self) -> None:
        """End the meters."""
        for meter in self._meters:
            meter.close()
