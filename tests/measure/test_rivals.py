"""CPU engines measured on a bundle, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.engines import faster
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.measure import rivals
from pulse_edge.measure.rivals import ANSWER, PAGE, measure_rivals, page_seconds


@pytest.mark.parametrize("context", [8, 64, None])
def test_a_chunk_and_steps_are_scaled_to_a_page(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, context: int | None
) -> None:
    """By a clock that runs 2 s a row of a prompt, and 3 s a step."""
    engine = open_engine(open_bundle(bundle), EngineOptions(threads=1, context=context))
    now = [0.0]
    prefill, choose = engine.prefill, engine.choose

    def slow_prefill(rows: Any, *rest: Any) -> Any:
        now[0] += 2.0 * len(rows)
        return prefill(rows, *rest)

    def slow_choose(rows: Any, *rest: Any) -> Any:
        now[0] += 3.0
        return choose(rows, *rest)

    monkeypatch.setattr(engine, "prefill", slow_prefill)
    monkeypatch.setattr(engine, "choose", slow_choose)
    assert page_seconds(engine, lambda: now[0]) == pytest.approx(2 * PAGE + 3 * ANSWER)
    assert engine.length == 0


def test_engines_are_measured_in_turn(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot run the bundle is named, and the others are measured."""
    names = {"onnxruntime": "numpy", "native": "numpy", "tensorrt": "numpy"}
    monkeypatch.setattr(faster, "RIVALS", names)
    seconds: Iterator[float] = iter([4.0])
    monkeypatch.setattr(rivals, "page_seconds", lambda engine: next(seconds))
    told: list[str] = []
    assert measure_rivals(open_bundle(bundle), 1, told.append) == {"onnxruntime": 4.0}
    assert [line.split(":")[0] for line in told] == ["native", "tensorrt"]


def test_a_real_measurement(bundle: Path) -> None:
    speeds = measure_rivals(open_bundle(bundle), 1)
    assert "onnxruntime" in speeds
    assert all(np.isfinite(value) and value > 0 for value in speeds.values())
