"""Progress on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from pulse_edge.cli.stage_bar import StageBar
from pulse_edge.cli.terminal import rewrite_line

TICK_SECONDS = 0.25  # between two drawings of a bar
# Seconds that a stage of a name and an amount usually takes; None if nobody knows.
Expected = Callable[[str, int], float | None]


class Status:
    """A line on stderr that shows how far a stage is; a `Progress` for everything that takes one.

    Nothing is shown if stderr is no terminal, or until a stage has taken `PATIENCE`. From then on
    the line moves four times a second, whether the stage reports or not.

    Args:
        clock: seconds since any moment.
    """

    PATIENCE = 0.5  # seconds

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._on = sys.stderr.isatty()
        self._clock = clock
        self._expected: Expected = _unknown
        self._lock = threading.RLock()  # a signal's handler may clear in the midst of a call
        self._bar: StageBar | None = None
        self._shown = False
        self._ended = threading.Event()
        self._ticks = False

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.clear()

    def expect(self, expected: Expected) -> None:
        """Say how long stages take here, for bars and for the seconds that are left.

        Args:
            expected: such as `Rates.stage`.
        """
        self._expected = expected

    def __call__(self, stage: str, amount: int, total: int) -> None:
        """Add `amount` of `total` to `stage`; another stage starts from nothing."""
        if not self._on:
            return
        with self._lock:
            now = self._clock()
            bar = self._bar
            if bar is None or stage != bar.name or bar.complete:
                bar = self._bar = StageBar(stage, total, now, self._expected(stage, total))
            bar.add(amount, now)
            self.draw()
            self._start_ticking()

    def draw(self) -> None:
        """Show the line as it is now."""
        with self._lock:
            now = self._clock()
            bar = self._bar
            if bar is not None and (self._shown or bar.elapsed(now) >= self.PATIENCE):
                rewrite_line(bar.line(now))
                self._shown = True

    def clear(self) -> None:
        """Remove the line, before something else is printed. The next report brings one back."""
        with self._lock:
            self._bar = None
            if self._shown:
                rewrite_line("")
                self._shown = False

    def _start_ticking(self) -> None:
        if not self._ticks:
            self._ticks = True
            with suppress(RuntimeError, MemoryError):  # without a thread, reports alone move it
                threading.Thread(target=self._tick, name="pulse-edge status", daemon=True).start()

    def _tick(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            self.draw()


def _unknown(_stage: str, _total: int) -> float | None:
    return None
