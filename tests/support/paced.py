"""Models whose decode steps take as long as a test wants, so that requests can be met midway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pulse_edge
from pulse_edge.arrays import Floats, Numbers

SECONDS = 30.0  # after which a held step goes on, so that a failed test ends


class Pace:
    """Holds a model's decode steps.

    Attributes:
        steps: that were begun.
        prefills: rows of each prefill, in the order in which they ran.
    """

    def __init__(self, model: pulse_edge.Model) -> None:
        self.steps = 0
        self.prefills: list[int] = []
        self._may = threading.Event()
        self._engine = cast(Any, model.engine)
        self._choose = self._engine.choose
        self._prefill = self._engine.prefill
        self._engine.choose = self._held
        self._engine.prefill = self._recorded
        self._may.set()

    def hold(self) -> None:
        """Let no step begin."""
        self._may.clear()

    def go(self) -> None:
        """Let steps begin."""
        self._may.set()

    def end(self) -> None:
        """Give the engine its own steps back."""
        self._engine.choose = self._choose
        self._engine.prefill = self._prefill
        self.go()

    def _held(self, *arguments: Any, **options: Any) -> Numbers:
        self.steps += 1
        self._may.wait(SECONDS)
        numbers: Numbers = self._choose(*arguments, **options)
        return numbers

    def _recorded(self, rows: Any, *arguments: Any, **options: Any) -> Floats:
        self.prefills.append(len(rows))
        logits: Floats = self._prefill(rows, *arguments, **options)
        return logits


@contextmanager
def paced(model: pulse_edge.Model) -> Iterator[Pace]:
    """A model's pace, which is its own again after the block."""
    pace = Pace(model)
    try:
        yield pace
    finally:
        pace.end()
