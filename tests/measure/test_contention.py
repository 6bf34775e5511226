"""Other work on the machine, read from files as Linux writes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge.measure import contention
from pulse_edge.measure.contention import ContentionWatch, busy_reasons, pace_ratio

HERTZ = 100
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def stat(*cores: dict[str, int]) -> str:
    """/proc/stat of these cores, seconds by column."""
    lines = ["cpu  1 2 3 4 5 6 7 8 9 10"]
    for number, seconds in enumerate(cores):
        counts = (str(HERTZ * seconds.get(column, 0)) for column in COLUMNS)
        lines.append(f"cpu{number} {' '.join(counts)} 0 0")
    return "\n".join([*lines, "intr 1 2 3", "ctxt 5"])


@pytest.fixture
def watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., contention.Contention]:
    """What is seen in ten seconds of two usable cores, of which we take `own`."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _: HERTZ, raising=False)
    monkeypatch.setattr(contention, "usable_cores", lambda: 2)

    def watch(
        before: str, after: str, own: float = 0.0, quota: tuple[int, int] | None = None
    ) -> contention.Contention:
        times = iter((100.0, 110.0))
        owns = iter((50.0, 50.0 + own))
        file, group = tmp_path / "stat", tmp_path / "cpu.stat"
        file.write_text(before)
        if quota:
            group.write_text(f"usage_usec 9\nthrottled_usec {quota[0]}\n")
        seen = ContentionWatch(file, group, lambda: next(owns), lambda: next(times))
        file.write_text(after)
        if quota:
            group.write_text(f"usage_usec 9\nthrottled_usec {quota[1]}\n")
        return seen.result()

    return watch


IDLE = {"user": 1000, "idle": 1000}


@pytest.mark.parametrize(
    ("cores", "own", "others", "steal"),
    [
        # each of two cores for 10 s; what is not ours is others'
        (({}, {}), 0, 0, 0),
        (({"user": 10}, {"idle": 10}), 0, 0.5, 0),
        (({"user": 10}, {"user": 10}), 20, 0, 0),
        (({"user": 10}, {"user": 10}), 10, 0.5, 0),
        (({"nice": 10}, {"idle": 10}), 0, 0.5, 0),
        (({"system": 2}, {"idle": 10}), 0, 0.1, 0),
        (({"irq": 1}, {"softirq": 1}), 0, 0.1, 0),
        (({"iowait": 10}, {"idle": 10}), 0, 0, 0),
        (({"steal": 2}, {"idle": 10}), 0, 0, 0.1),
        (({"user": 1}, {"idle": 9}), 5, 0, 0),  # counters of unequal age: never below 0
        (({}, {}, {"user": 10}), 0, 0, 0),  # a core that we may not use
    ],
)
def test_what_others_take(
    watched: Callable[..., contention.Contention],
    cores: tuple[dict[str, int], ...],
    own: float,
    others: float,
    steal: float,
) -> None:
    later = [{c: IDLE.get(c, 0) + core.get(c, 0) for c in COLUMNS} for core in cores]
    seen = watched(stat(*[IDLE] * len(cores)), stat(*later), own)
    assert (seen.seconds, seen.others, seen.steal) == (10, others, steal)
    assert seen.throttled is None


def test_a_quota_that_stops_us(watched: Callable[..., contention.Contention]) -> None:
    seen = watched(stat(IDLE, IDLE), stat(IDLE, IDLE), quota=(1_000_000, 4_000_000))
    assert seen.throttled == 0.3


@pytest.mark.parametrize("text", ["", "cpu 0 0 0", "cpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0"])
def test_a_system_that_does_not_tell(
    watched: Callable[..., contention.Contention], text: str
) -> None:
    seen = watched(text, text)
    assert (seen.others, seen.steal, seen.throttled) == (None, None, None)
    assert busy_reasons(vars(seen)) == []


def test_this_machine_is_read() -> None:
    watch = ContentionWatch()
    for _ in range(3):
        watch.measure_pace()
    seen = watch.result()
    assert len(seen.pace) == 3
    assert min(seen.pace) > 0
    assert seen.others is None or 0 <= seen.others <= 1


def test_reasons_name_share_and_limit() -> None:
    record = {"others": 0.3, "steal": 0.2, "throttled": 0.051, "pace": ()}
    reasons = busy_reasons(record)
    assert len(reasons) == 3
    assert reasons[0] == "other processes took 30% of the cores' time (limit 10%)"
    assert busy_reasons(None) == []
    assert busy_reasons({"others": 0.1, "steal": 0.05, "throttled": 0.05}) == []


def test_pace_is_compared_by_medians() -> None:
    assert pace_ratio({"pace": (3.0, 1.0, 2.0)}, {"pace": (1.0,)}) == 2
    assert pace_ratio({"pace": ()}, {"pace": (1.0,)}) is None
    assert pace_ratio({"pace": (1.0,)}, None) is None
