"""An engine that remembers its calls, and a measured run over one."""

from __future__ import annotations

from typing import Any, NamedTuple

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.engine import Engine, Features, Rows
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.progress import Progress

Call = tuple[str, int, int]  # what was called, positions in the cache before, rows


class Measured(NamedTuple):
    """A run's record, and the calls that reached its engine."""

    record: dict[str, Any]
    calls: list[Call]


class Spy:
    """An engine that remembers its calls."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        self.engine: Engine = open_engine(bundle, options)
        self.calls: list[Call] = []

    def prefill(
        self,
        rows: Rows,
        progress: Progress | None = None,
        slot: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        self.calls.append(("prefill", self.engine.length, len(rows)))
        return self.engine.prefill(rows, progress, slot, cancellation)

    def choose(self, rows: Rows) -> Numbers:
        self.calls.append(("choose", self.engine.length, len(rows)))
        return self.engine.choose(rows)

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Features:
        self.calls.append(("encode", 0, len(pixels)))
        return self.engine.encode(pixels, cancellation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)
