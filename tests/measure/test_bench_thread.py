"""One thread uses the engine of a benchmark: CUDA graphs are captured per thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.measure import bench
from pulse_edge.measure.sweep import Settings


class Watched:
    """An engine that remembers which threads called its networks."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.threads: dict[str, set[int]] = {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.engine, name)
        if name in ("encode", "prefill", "step", "choose"):
            self.threads.setdefault(name, set()).add(threading.get_ident())
        return value


def test_the_model_s_thread_runs_requests_and_sweeps(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Watched] = []

    def watch(bundle: Bundle, options: EngineOptions) -> Watched:
        opened.append(Watched(open_engine(bundle, options)))
        return opened[-1]

    monkeypatch.setattr(bench, "open_engine", watch)
    settings = Settings(1, 0, 0, new_tokens=4, prompt_lengths=(8,), depths=(0, 8), quick=True)
    record = bench.run(bundle, EngineOptions(threads=1), settings)
    assert {point["kind"] for point in record["sweeps"]} == {"pp", "tg"}
    (engine,) = opened
    assert engine.threads.keys() == {"encode", "prefill", "choose"}
    threads = set.union(*engine.threads.values())
    assert len(threads) == 1
    assert threading.get_ident() not in threads
