"""Decode steps of several slots in one pass of ONNX Runtime over the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pulse_edge.arrays import Floats
from pulse_edge.engines.cursor import Cursor
from pulse_edge.engines.engine import Rows
from pulse_edge.engines.onnxruntime_runs import Decoder, DecoderRun

KEPT_RUNS = 32  # bound runs that are kept, each with logits [slots, vocab]


class SharedSteps:
    """Appends a row to each of several slots.

    The attention takes neighbouring slots only. A slot between two others gets a row whose result
    is thrown away. The key and value of that row lie beyond the slot's length, where nobody reads
    and the next row overwrites them.

    Args:
        decoder: what all runs share.
        cursors: of all slots.
        row_cost: see `Engine`.
        alone: the run of one row for a slot.
    """

    def __init__(
        self,
        decoder: Decoder,
        cursors: Sequence[Cursor],
        row_cost: float,
        alone: Callable[[int], DecoderRun],
    ) -> None:
        self._decoder = decoder
        self._cursors = cursors
        self._gap = int(1 / row_cost)  # slots that cost less than one more pass
        self._alone = alone
        self._runs: dict[tuple[int, int], DecoderRun] = {}  # the last used one at the end

    def __call__(self, rows: Rows, slots: list[int]) -> Floats:
        """Logits float32 [k, vocab] after each row; valid until the next call.

        Args:
            rows: [k, hidden].
            slots: as many, each another one.

        Raises:
            ValueError: the rows are not of the kind that the graph takes.
            EngineError: a row does not fit its slot, or the graph failed. No length has changed.
        """
        if rows.ndim != 2:
            raise ValueError(f"rows are of shape {rows.shape}; `Engine.rows` makes those that fit")
        for slot in slots:
            self._cursors[slot].appending(1)  # raises if it is full
        groups = neighbours(sorted(slots), self._has_room, self._gap)
        if groups == [slots]:
            logits = self._run(rows, slots)
        else:
            logits = np.empty((len(rows), self._decoder.text.vocab), np.float32)
            for group in groups:
                chosen = [slots.index(slot) for slot in group]
                logits[chosen] = self._run(rows[chosen], group)
        for slot in slots:
            self._cursors[slot].advance(self._cursors[slot].length + 1)
        return logits

    def _has_room(self, slot: int) -> bool:
        return self._cursors[slot].length < self._cursors[slot].capacity

    def _run(self, rows: Rows, slots: list[int]) -> Floats:
        first = slots[0]
        if len(slots) == 1:
            single = self._alone(first)
            single(rows, self._cursors[first].length)
            return single.logits()
        count = slots[-1] - first + 1
        positions = [cursor.length for cursor in self._cursors[first : first + count]]
        run = self._run_of(first, count)
        if count == len(slots):
            run.together(rows, positions)
            return run.logits()
        places = [slot - first for slot in slots]
        spread = np.zeros((count, *rows.shape[1:]), rows.dtype)
        spread[places] = rows
        run.together(spread, positions)
        return run.logits()[places]

    def _run_of(self, first: int, count: int) -> DecoderRun:
        run = self._runs.pop((first, count), None)
        if run is None:
            run = DecoderRun(self._decoder, 1, 1, slot=first, count=count)
        self._runs[first, count] = run
        if len(self._runs) > KEPT_RUNS:
            del self._runs[next(iter(self._runs))]
        return run


def neighbours(slots: list[int], has_room: Callable[[int], bool], gap: int) -> list[list[int]]:
    """Split slots into groups, each for one pass.

    Args:
        slots: ascending.
        has_room: whether a slot can take a row that nobody reads.
        gap: most slots between two of a group that are not of it.
    """
    groups: list[list[int]] = []
    for slot in slots:
        between = range(groups[-1][-1] + 1, slot) if groups else range(0)
        if groups and len(between) <= gap and all(map(has_room, between)):
            groups[-1].append(slot)
        else:
            groups.append([slot])
    return groups
