"""Progress on a terminal."""

from __future__ import annotations

import sys
import threading
import time

from pulse_edge.cli.terminal import rewrite_line


class Status:
    """A line on stderr that shows how far a stage is; a `Progress` for everything that takes one.

    Nothing is shown if stderr is no terminal, or until a stage has taken `PATIENCE`.
    """

    PATIENCE = 0.5  # seconds

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._stage = ""
        self._done = 0
        self._since = 0.0
        self._shown = False

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, stage: str, amount: int, total: int) -> None:
        """Add `amount` of `total` to `stage`; another stage starts from nothing."""
        if not self._on:
            return
        with self._lock:
            if stage != self._stage or self._done >= total:
                self._stage = stage
                self._done = 0
                self._since = time.monotonic()
            self._done += amount
            # An amount of 0 announces work that cannot tell how far it is: show it at once.
            if amount == 0 or time.monotonic() - self._since > self.PATIENCE:
                share = self._done / max(1, total)
                bar = "#" * int(30 * share)
                rewrite_line(f"{stage:<10} [{bar:<30}] {share:4.0%}")
                self._shown = True

    def clear(self) -> None:
        """Remove the line, before something else is printed."""
        if self._shown:
            rewrite_line("")
            self._shown = False
