"""A record compared with an earlier one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.errors import ParameterError, RegressionError
from pulse_edge.measure import baseline as baselines


def worse(record: dict[str, Any], **factors: float) -> dict[str, Any]:
    """A copy with medians multiplied."""
    changed = copy.deepcopy(record)
    for name, factor in factors.items():
        changed["figures"][name]["p50"] *= factor
    return changed


@pytest.fixture
def baseline(record: dict[str, Any], tmp_path: Path) -> Callable[..., baselines.Baseline]:
    def make(fail_over: str = "10%") -> baselines.Baseline:
        path = tmp_path / "baselines.json"
        path.write_text(json.dumps(record))
        return baselines.Baseline(path, fail_over)

    return make


def test_comparison(record: dict[str, Any], baseline: Callable[..., baselines.Baseline]) -> None:
    base = baseline()
    base.check(record)
    base.check(worse(record, ttft_cold=1.09, pp16=0.91, tpot=0.1))
    base.check(
        worse(record, vision=9, ttft_first=9, load_engine=9, e2e=9)
    )  # shown, never a reason to fail
    with pytest.raises(
        RegressionError, match=r"2 of 9 medians .* by over 10 %: pp16, ttft_cold$"
    ) as raised:
        base.check(worse(record, ttft_cold=1.12, pp16=0.8, tpot=0.5))
    assert raised.value.exit_code == 9
    changes = {
        c.name: c.worse for c in base.changes(worse(record, pp16=0.8, tpot=0.5, peak_memory=3))
    }
    assert list(changes)[:2] == ["peak_memory", "pp16"]
    assert changes["peak_memory"] == pytest.approx(2)
    assert changes["pp16"] == pytest.approx(0.2)
    assert changes["tpot"] == pytest.approx(-0.5)
    baseline("25").check(worse(record, pp16=0.8))
    with pytest.raises(RegressionError):
        baseline("0%").check(worse(record, pp16=0.999))


def test_comparison_says_what_is_not_the_same(
    record: dict[str, Any], baseline: Callable[..., baselines.Baseline]
) -> None:
    base = baseline()
    assert "not the same" not in base.table(record)
    record["machine"]["name"] = "another"
    record["provenance"]["engine"]["threads"] = 2
    table = base.table(worse(record, pp16=0.5))
    assert "not the same machine name" in table
    assert "not the same provenance engine threads: the baseline has 1, this run 2" in table
    assert [line.split()[0] for line in table.splitlines() if "REGRESSED" in line] == ["pp16"]
    with pytest.raises(ParameterError, match="no figure in common"):
        base.check(record | {"figures": {}})


def test_baselines_that_are_none(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    baselines.append(path, record | {"time": "first"})
    baselines.append(path, record | {"time": "second"})
    assert baselines.read_record(path)["time"] == "second"
    for text in ("", "{", "[]", '{"schema": 0}', json.dumps(record)[:-9]):
        path.write_text(text)
        with pytest.raises(ParameterError, match="not a result"):
            baselines.read_record(path)
    with pytest.raises(ParameterError, match="cannot be read"):
        baselines.read_record(tmp_path)
    path.write_text(json.dumps(record))
    for bad in ("ten", "-1%", "", "nan"):
        with pytest.raises(ParameterError, match="percentage"):
            baselines.Baseline(path, bad)
