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
    """One quick run, of three repetitions. A length that is named twice must run once."""
    settings = sweep.Settings(3, 1, 1, 5, (16, 64, 4000, 16), (0, 40, 4000), quick=True)
    spies: list[Spy] = []

    def spy(bundle: Bundle, options: EngineOptions) -> Spy:
        spies.append(Spy(bundle, options))
        return spies[0]

    def device_memory(pid: int) -> int | None:
        return 3_000_000 if pid == os.getpid() else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulse_edge.system.device_memory", device_memory)
        patch.setattr(bench, "open_engine", spy)
        options = EngineOptions(threads=1, context=400)
        record = bench.run(bundle, options, settings, slo={"ttft": 60_000.0, "tpot": 1e-9})
    return Measured(record, spies[0].calls)


@pytest.fixture
def record(measured: Measured) -> dict[str, Any]:
    """The run's record as it is written to a file, afresh for each test, on a quiet machine."""
    written: dict[str, Any] = json.loads(json.dumps(measured.record, allow_nan=False))
    written["contention"] |= {"others": 0.01, "steal": 0.0, "throttled": None}
    return written
