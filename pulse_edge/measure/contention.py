"""How busy the machine was with other work while something was measured.

Linux counts the time of each core in /proc/stat. What the usable cores did, less what this process
and its children did, is other work. A fixed piece of work (`pace`) shows what no counter does: a
neighbour on the same host, a lower clock.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.measure.figures import Record
from pulse_edge.system import read_file, usable_cores

STAT = Path("/proc/stat")
CGROUP = Path("/sys/fs/cgroup/cpu.stat")
# Shares of the usable cores' time above which a machine counts as busy. A quiet desktop gives some
# percent to other work; from 10 % on, figures may move by the default --fail-over.
MOST_OTHERS = 0.10
MOST_STEAL = 0.05
MOST_THROTTLED = 0.05
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7  # columns of /proc/stat
_PACE_WORK = np.random.default_rng(0).standard_normal(100_000)


@dataclass(frozen=True)
class Contention:
    """Other work during a measurement. What the system does not tell is None.

    Attributes:
        seconds: how long it was watched.
        others: share of the usable cores' time that other processes took.
        steal: share that the hypervisor gave to other machines.
        throttled: share of the time in which the container's CPU quota stopped us.
        pace: seconds of a fixed piece of work on one core, at each repetition.
    """

    seconds: float
    others: float | None
    steal: float | None
    throttled: float | None
    pace: tuple[float, ...]


@dataclass(frozen=True)
class _Counters:
    """Seconds since boot or start."""

    wall: float
    own: float
    busy: float | None
    steal: float | None
    throttled: float | None


@dataclass
class ContentionWatch:
    """Watches from its making until `result`.

    Attributes:
        stat: the kernel's file of the cores' time.
        cgroup: the file of the container's CPU quota.
        own: seconds of CPU that this process and its finished children have taken.
        clock: seconds.
    """

    stat: Path = STAT
    cgroup: Path = CGROUP
    own: Callable[[], float] = field(default=lambda: sum(os.times()[:4]))
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        self._pace: list[float] = []
        self._start = self._read()

    def measure_pace(self) -> None:
        """Time the fixed piece of work once, some 5 ms."""
        start = self.clock()
        np.sort(_PACE_WORK)
        self._pace.append(float(f"{self.clock() - start:.6g}"))

    def result(self) -> Contention:
        """What happened since this was made."""
        now = self._read()
        wall = now.wall - self._start.wall
        whole = wall * usable_cores()
        busy = _difference(now.busy, self._start.busy)
        others = None if busy is None else busy - (now.own - self._start.own)
        return Contention(
            seconds=round(wall, 3),
            others=_part_of(others, whole),
            steal=_part_of(_difference(now.steal, self._start.steal), whole),
            throttled=_part_of(_difference(now.throttled, self._start.throttled), wall),
            pace=tuple(self._pace),
        )

    def _read(self) -> _Counters:
        busy, steal = _core_seconds(self.stat)
        return _Counters(self.clock(), self.own(), busy, steal, _throttled_seconds(self.cgroup))


def busy_reasons(contention: Record | None) -> list[str]:
    """Why a machine was too busy for a verdict; empty if it was not, or if nothing is known.

    Args:
        contention: of a record; None in records from before it was measured.
    """
    if contention is None:
        return []
    limits = (
        ("others", MOST_OTHERS, "other processes took {share} of the cores' time"),
        ("steal", MOST_STEAL, "the hypervisor took {share} of the cores' time"),
        ("throttled", MOST_THROTTLED, "the CPU quota stopped us {share} of the time"),
    )
    reasons = []
    for name, limit, text in limits:
        share = contention[name]
        if share is not None and share > limit:
            reasons.append(f"{text.format(share=f'{share:.0%}')} (limit {limit:.0%})")
    return reasons


def pace_ratio(now: Record | None, before: Record | None) -> float | None:
    """How much slower the fixed piece of work ran than before (1.1 = 10 %); None if unknown.

    Args:
        now: a record's contention.
        before: of the record that it is compared with.
    """
    paces = [contention["pace"] if contention else () for contention in (now, before)]
    if not all(paces):
        return None
    return float(statistics.median(paces[0]) / statistics.median(paces[1]))


def _core_seconds(stat: Path) -> tuple[float | None, float | None]:
    """(seconds at work, seconds stolen) of the usable cores."""
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    busy = steal = 0
    for line in (read_file(stat) or "").splitlines():
        name, *columns = line.split()
        if name[:3] != "cpu" or not name[3:].isdigit() or int(name[3:]) not in usable:
            continue
        counts = [int(column) for column in columns] + [0] * 8
        busy += sum(counts[i] for i in (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ))
        steal += counts[_STEAL]
    return (busy / ticks, steal / ticks) if busy else (None, None)


def _throttled_seconds(cgroup: Path) -> float | None:
    for line in (read_file(cgroup) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "throttled_usec" and value.isdigit():
            return int(value) / 1e6
    return None


def _difference(now: Any, before: Any) -> float | None:
    return None if now is None or before is None else float(now - before)


def _part_of(part: float | None, whole: float) -> float | None:
    if part is None or whole <= 0:
        return None
    return round(min(1.0, max(0.0, part / whole)), 4)
