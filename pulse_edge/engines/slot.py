"""One slot of an engine, as an engine that has no other."""

from __future__ import annotations

from typing import Any

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.cursor import Cursor
from pulse_edge.engines.engine import Engine, Features, Rows, SavedCache
from pulse_edge.progress import Progress


class EngineSlot:
    """See `Engine`. Whatever is asked of slot 0 happens to one slot of another engine.

    Args:
        engine: has the slots.
        number: of the slot.
    """

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine = engine
        self.number = number
        self.cursors: tuple[Cursor, ...] = (engine.cursors[number],)
        self.table_rows = engine.table_rows
        self.row_cost = engine.row_cost
        self.draft_cost = engine.draft_cost
        self.most_rows = engine.most_rows

    @property
    def capacity(self) -> int:
        """See `Engine`."""
        return self.cursors[0].capacity

    @property
    def length(self) -> int:
        """See `Engine`."""
        return self.cursors[0].length

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Features:
        """See `Engine`."""
        return self.engine.encode(pixels, cancellation)

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        """See `Engine`."""
        return self.engine.rows(numbers, page)

    def prefill(
        self,
        rows: Rows,
        progress: Progress | None = None,
        slot: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        """See `Engine`."""
        return self.engine.prefill(rows, progress, self.number, cancellation)

    def choose(self, rows: Rows, slot: int | Numbers = 0) -> Numbers:
        """See `Engine`."""
        return self.engine.choose(rows, self.number)

    def step(self, rows: Rows, slot: int | Numbers = 0) -> Floats:
        """See `Engine`."""
        return self.engine.step(rows, self.number)

    def rewind(self, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        self.engine.rewind(length, self.number)

    def reset(self, slot: int = 0) -> None:
        """See `Engine`."""
        self.engine.reset(self.number)

    def saved_size(self, length: int) -> int:
        """See `Engine`."""
        return self.engine.saved_size(length)

    def save(self, length: int, slot: int = 0) -> SavedCache:
        """See `Engine`."""
        return self.engine.save(length, self.number)

    def restore(self, saved: SavedCache, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        self.engine.restore(saved, length, self.number)

    def copy(self, length: int, source: int, slot: int) -> None:
        """See `Engine`. `source` is a number of the other engine's slots."""
        self.engine.copy(length, source, self.number)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return self.engine.describe()
