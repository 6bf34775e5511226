"""Models whose decode steps take as long as a test wants, so that requests can be met midway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pulse_edge
from pulse_edge.arrays import Numbers

SECONDS = 30.0  # after which a held step goes on, so that a failed test ends


class Pace:
    """Holds a model's decode steps.

    Attributes:
        steps: that were begun.
    """

    def __init__(self, model: pulse_edge.Model) -> None:
        self.steps = 0
        self._may = threading.Event()
        self._engine = cast(Any, model.engine)
        self._choose = self._engine.choose
        self._engine.choose = self._held
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
        self.go()

    def _held(self, *arguments: Any, **options: Any) -> Numbers:
        self.steps += 1
        self._may.wait(SECONDS)
        numbers: Numbers = self._choose(*arguments, **options)
        return numbers


@contextmanager
def paced(model: pulse_edge.Model) -> Iterator[Pace]:
    """A model's pace, which is its own again after the block."""
    pace = Pace(model)
    try:
        yield pace
    finally:
        pace.end()
