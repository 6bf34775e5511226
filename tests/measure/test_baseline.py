"""A record compared with an earlier one: by intervals, and only where that can be told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.errors import NoVerdictError, ParameterError, RegressionError
from pulse_edge.measure import baseline as baselines

from support.records import scaled, steady, with_samples

Record = dict[str, Any]
Make = Callable[..., baselines.Baseline]


@pytest.fixture
def record(record: Record) -> Record:
    """Times and rates vary by 1 %."""
    return steady(record)


@pytest.fixture
def baseline(record: Record, tmp_path: Path) -> Make:
    def make(fail_over: str = "10%", **changes: Any) -> baselines.Baseline:
        path = tmp_path / "baselines.json"
        path.write_text(json.dumps(record | changes))
        return baselines.Baseline(path, fail_over)

    return make


def verdicts(base: baselines.Baseline, record: Record) -> dict[str, str]:
    return {c.name: c.verdict(base.tolerance) for c in base.changes(record)}


def test_what_is_worse_beyond_doubt_fails(record: Record, baseline: Make) -> None:
    base = baseline()
    base.check(record)
    base.check(scaled(record, ttft_cold=1.07, pp16=0.93, tpot=0.1))
    # Shown, never a reason to fail.
    base.check(scaled(record, vision=9, ttft_first=9, load_engine=9, e2e=9, itl=9))
    with pytest.raises(
        RegressionError, match=r"2 of 9 medians .* by over 10 %: pp16, ttft_cold$"
    ) as raised:
        base.check(scaled(record, ttft_cold=1.14, pp16=0.8, tpot=0.5))
    assert raised.value.exit_code == 9
    changes = base.changes(scaled(record, pp16=0.8, tpot=0.5, peak_memory=3))
    assert [c.name for c in changes][:2] == ["peak_memory", "pp16"]
    worse = {c.name: c.worse for c in changes}
    assert worse["peak_memory"] == pytest.approx(2, rel=1e-4)
    assert worse["pp16"] == pytest.approx(0.2, rel=1e-4)
    assert worse["tpot"] == pytest.approx(-0.5, rel=1e-4)
    assert all(c.interval[0] <= c.worse + 1e-9 <= c.interval[1] + 2e-9 for c in changes)
    baseline("25").check(scaled(record, pp16=0.8))
    with pytest.raises(RegressionError):
        baseline("0%").check(scaled(record, pp16=0.9))


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        # seconds of five repetitions; the tolerance is 10 %
        ([1.0, 1.01, 1.0, 0.99, 1.0], [1.2, 1.21, 1.2, 1.19, 1.2], "REGRESSED"),
        ([1.0, 1.01, 1.0, 0.99, 1.0], [1.11, 1.12, 1.11, 1.1, 1.11], "not clear"),
        ([1.0, 1.01, 1.0, 0.99, 1.0], [1.05, 1.06, 1.05, 1.04, 1.05], ""),
        ([1.0, 1.01, 1.0, 0.99, 1.0], [0.8, 0.81, 0.8, 0.79, 0.8], "better"),
        # the case: medians differ by 83 %, but so do repetitions of one run
        ([1.0, 1.9, 1.0, 2.0, 1.1], [1.83, 1.0, 1.9, 1.1, 2.0], "not clear"),
        ([1.0, 1.0, 3.0, 1.0, 1.0], [1.3, 1.3, 1.3, 0.9, 1.3], "not clear"),
        ([1.0, 1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 1.0, 1.0, 1.0], ""),
        ([1.0, 5.0, 1.0, 1.0, 1.0], [6.0, 6.0, 6.0, 6.0, 6.0], "REGRESSED"),
        ([1.0] * 3, [1.2] * 3, "REGRESSED"),
        ([1.0] * 2, [1.2] * 5, "too few repetitions"),
        ([1.0] * 5, [1.2] * 2, "too few repetitions"),
        ([1.0], [90.0], "too few repetitions"),
    ],
)
def test_a_verdict_is_by_the_interval(
    record: Record, tmp_path: Path, before: list[float], now: list[float], verdict: str
) -> None:
    path = tmp_path / "before.json"
    path.write_text(json.dumps(with_samples(record, tpot=before)))
    base = baselines.Baseline(path, "10%")
    changed = with_samples(record, tpot=now)
    assert verdicts(base, changed)["tpot"] == verdict
    shown = next(line for line in base.table(changed).splitlines() if line.startswith("tpot"))
    assert shown.rstrip().endswith(verdict)
    if verdict == "REGRESSED":
        with pytest.raises(RegressionError, match="tpot"):
            base.check(changed)
    else:
        base.check(changed)


def test_runs_of_one_distribution_do_not_fail_each_other(record: Record, tmp_path: Path) -> None:
    """Repetitions that vary by 30 %, as on a noisy machine: of 60 pairs at most one fails."""
    rng = np.random.default_rng(1)
    names = [n for n, f in record["figures"].items() if f["gate"] and f["unit"] != "bytes"]

    def draw() -> Record:
        samples = {n: list(rng.lognormal(0, 0.3, 5)) for n in names}
        return with_samples(record, **samples)

    failed = 0
    for _ in range(60):
        path = tmp_path / "before.json"
        path.write_text(json.dumps(draw()))
        failed += "REGRESSED" in verdicts(baselines.Baseline(path, "10%"), draw()).values()
    assert failed <= 1


@pytest.mark.parametrize("whose", ["this run", "the baseline"])
@pytest.mark.parametrize(
    ("field", "share", "busy"),
    [
        ("others", 0.09, False),
        ("others", 0.11, True),
        ("others", 0.95, True),
        ("others", None, False),
        ("steal", 0.04, False),
        ("steal", 0.06, True),
        ("throttled", 0.04, False),
        ("throttled", 0.5, True),
    ],
)
def test_a_busy_machine_gets_no_verdict(
    record: Record, baseline: Make, whose: str, field: str, share: float | None, busy: bool
) -> None:
    loaded = record["contention"] | {field: share}
    worse = scaled(record, tpot=3)
    if whose == "this run":
        base = baseline()
        worse["contention"] = loaded
    else:
        base = baseline(contention=loaded)
    expected = NoVerdictError if busy else RegressionError
    with pytest.raises(expected) as raised:
        base.check(worse)
    assert raised.value.exit_code == (14 if busy else 9)
    if busy:
        assert f"no verdict: {whose}: " in str(raised.value)
        assert f"{share:.0%}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_machine_that_became_slower_is_not_a_regression(record: Record, baseline: Make) -> None:
    record["contention"]["pace"] = [0.005] * 5
    base = baseline()
    slower = scaled(record, tpot=1.4)
    slower["contention"]["pace"] = [0.0065] * 5
    with pytest.raises(NoVerdictError, match=r"fixed piece of work took 30% longer .* tpot"):
        base.check(slower)
    slower["contention"]["pace"] = [0.0055] * 5
    with pytest.raises(RegressionError):
        base.check(slower)
    same = copy.deepcopy(record)
    same["contention"]["pace"] = [0.0065] * 5
    base.check(same)  # nothing is worse: the slower machine changes nothing


def test_interrupted_runs_get_no_verdict(record: Record, baseline: Make) -> None:
    with pytest.raises(NoVerdictError, match="this run was interrupted at its sweeps"):
        baseline().check(record | {"interrupted": "sweeps"})
    with pytest.raises(NoVerdictError, match="the baseline was interrupted at its requests"):
        baseline(interrupted="requests").check(record)


def test_times_without_repetitions_get_no_verdict(record: Record, baseline: Make) -> None:
    names = [n for n, f in record["figures"].items() if f["gate"] and f["unit"] != "bytes"]
    once = with_samples(record, **{n: [record["figures"][n]["p50"]] for n in names})
    with pytest.raises(NoVerdictError, match="no time has 3 repetitions in both; give -r 5"):
        baseline().check(once)


def old(record: Record) -> Record:
    """As the version before wrote it."""
    changed = copy.deepcopy(record) | {"schema": 2}
    for name in ("interrupted", "warmup", "contention", "goodput", "energy"):
        del changed[name]
    del changed["machine"]["cpu"]
    del changed["settings"]["warmup_limit"]
    for f in changed["figures"].values():
        del f["low"], f["high"]
        f["p99"] = f["p90"]
    return changed


def test_old_records_are_compared_with_a_note(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    baselines.append(path, old(record))
    base = baselines.Baseline(path, "10%")
    base.check(record)
    table = base.table(record)
    assert "the baseline is an old record (schema 2)" in table
    assert "not the same" not in table
    with pytest.raises(RegressionError, match="tpot"):
        base.check(scaled(record, tpot=2))
    assert "old record" not in _table_of(record, tmp_path)


def _table_of(record: Record, folder: Path) -> str:
    path = folder / "new.json"
    path.write_text(json.dumps(record))
    return baselines.Baseline(path, "10%").table(record)


def test_comparison_says_what_is_not_the_same(record: Record, baseline: Make) -> None:
    base = baseline()
    assert "not the same" not in base.table(record)
    record["machine"]["name"] = "another"
    record["provenance"]["engine"]["threads"] = 2
    table = base.table(scaled(record, pp16=0.5))
    assert "not the same machine: the baseline has" in table
    assert "this run another (" in table
    assert "not the same provenance engine threads: the baseline has 1, this run 2" in table
    assert [line.split()[0] for line in table.splitlines() if "REGRESSED" in line] == ["pp16"]
    with pytest.raises(ParameterError, match="no figure in common"):
        base.check(record | {"figures": {}})


def test_of_a_file_the_last_record_of_the_same_series_counts(
    record: Record, tmp_path: Path
) -> None:
    path = tmp_path / "results.jsonl"
    mine, other = copy.deepcopy(record), copy.deepcopy(record)
    other["provenance"]["engine"]["threads"] = 2
    for number, each in enumerate((other, mine, other)):
        baselines.append(path, each | {"time": str(number)})
    base = baselines.Baseline(path, "10%")
    assert base.record_for(record)["time"] == "1"
    assert base.record_for(other)["time"] == "2"
    foreign = copy.deepcopy(record)
    foreign["machine"]["cpu"] = {"family": "1", "model": "2", "stepping": "3"}
    assert base.record_for(foreign)["time"] == "2"  # none is of its machine: the last one
    path.write_text(json.dumps([mine | {"time": "a"}, mine | {"time": "b"}]))
    assert baselines.read_record(path)["time"] == "b"  # as --json prints several


def test_baselines_that_are_none(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    baselines.append(path, record | {"time": "first"})
    baselines.append(path, record | {"time": "second"})
    assert baselines.read_record(path)["time"] == "second"
    texts = ("", "{", "[]", '{"schema": 0}', '{"schema": 3, "kind": "x"}', json.dumps(record)[:-9])
    for text in texts:
        path.write_text(text)
        with pytest.raises(ParameterError, match="not a result"):
            baselines.read_record(path)
    with pytest.raises(ParameterError, match="cannot be read"):
        baselines.read_record(tmp_path)
    path.write_text(json.dumps(record))
    for bad in ("ten", "-1%", "", "nan"):
        with pytest.raises(ParameterError, match="percentage"):
            baselines.Baseline(path, bad)
