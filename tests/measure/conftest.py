"""One measured run of a tiny model, shared by the tests of benchmarks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.options import EngineOptions
from pulse_edge.measure import bench, sweep

from support.spy import Measured, Spy


@pytest.fixture(scope="session")
def measured(bundle: Path) -> Measured:
    """One quick run. A length that is named twice must run once."""
    settings = sweep.Settings(2, 1, 5, (16, 64, 4000, 16), (0, 40, 4000), quick=True)
    spies: list[Spy] = []

    def spy(bundle: Bundle, options: EngineOptions) -> Spy:
        spies.append(Spy(bundle, options))
        return spies[0]

    def device_memory(pid: int) -> int | None:
        return 3_000_000 if pid == os.getpid() else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulse_edge.system.device_memory", device_memory)
        patch.setattr(bench, "open_engine", spy)
        record = bench.run(bundle, EngineOptions(threads=1, context=400), settings)
    return Measured(record, spies[0].calls)


@pytest.fixture
def record(measured: Measured) -> dict[str, Any]:
    """The run's record as it is written to a file, afresh for each test."""
    written: dict[str, Any] = json.loads(json.dumps(measured.record, allow_nan=False))
    return written
