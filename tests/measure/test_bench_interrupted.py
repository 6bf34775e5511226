"""Ctrl-C keeps what a benchmark has measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pulse_edge.engines.options import EngineOptions
from pulse_edge.measure import bench, requests
from pulse_edge.measure.sweep import Settings
from pulse_edge.model import Model

from support.paths import DOCS

SETTINGS = Settings(4, 0, 0, 3, (16,), (0,), quick=True)
SCHEMA = json.loads((DOCS / "bench.schema.json").read_text())


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def run(bundle: Path) -> dict[str, Any]:
    record: dict[str, Any] = bench.run(bundle, EngineOptions(threads=1), SETTINGS)
    jsonschema.validate(json.loads(json.dumps(record)), SCHEMA)
    return record


@pytest.mark.parametrize("complete", [1, 3])
def test_in_the_midst_of_the_requests(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, complete: int
) -> None:
    asked = [0]
    stream = Model.stream

    def counted(self: Model, *args: Any, **kwargs: Any) -> Any:
        asked[0] += 1
        if asked[0] > complete:
            raise KeyboardInterrupt
        return stream(self, *args, **kwargs)

    monkeypatch.setattr(Model, "stream", counted)
    record = run(bundle)
    assert record["interrupted"] == "requests"
    assert len(record["figures"]["ttft_cold"]["samples"]) == complete
    assert record["sweeps"] == []
    assert "peak_memory" not in record["figures"]
    assert record["peaks"] is None


@pytest.mark.parametrize(
    ("function", "stage"),
    [("_projector", "projector"), ("sweep", "sweeps"), ("measure_peaks", "peaks")],
)
def test_in_a_later_stage(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, function: str, stage: str
) -> None:
    monkeypatch.setattr(bench, function, interrupt)
    record = run(bundle)
    assert record["interrupted"] == stage
    assert len(record["figures"]["ttft_cold"]["samples"]) == 4
    assert ("pp16" in record["figures"]) == (stage == "peaks")


def test_points_that_are_complete_are_kept(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(engine: Any, text: Any, settings: Any, runs: Any, *_: Any) -> None:
        runs[0].seconds.extend([0.5, 0.25])
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "sweep", some)
    record = run(bundle)
    assert record["figures"]["pp16"]["samples"] == (32, 64)
    assert [point["kind"] for point in record["sweeps"]] == ["pp"]


def test_before_there_is_anything_it_is_raised(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.RequestRuns, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.run(bundle, EngineOptions(threads=1), SETTINGS)


def test_a_failure_is_no_interruption(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(bench, "sweep", fail)
    with pytest.raises(ValueError, match="broken"):
        bench.run(bundle, EngineOptions(threads=1), SETTINGS)
