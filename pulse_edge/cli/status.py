"""What the command shows while something takes long."""

from __future__ import annotations

import sys
import threading
import time

import click


class Status:
    """A line on stderr that says what goes on, where stderr is a terminal and only once something takes a while."""

    PATIENCE = 0.5  # seconds before anything is shown

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._stage, self._done, self._since, self._shown = "", 0, 0.0, False

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def __call__(self, stage: str, amount: int, total: int) -> None:
        if not self._on:
            return
        with self._lock:
            if stage != self._stage or self._done >= total:
                self._stage, self._done, self._since = stage, 0, time.monotonic()
            self._done += amount
            # Nothing done yet: the announcement of something that cannot tell how far it is.
            if amount == 0 or time.monotonic() - self._since > self.PATIENCE:
                share = self._done / max(1, total)
                bar = "#" * int(30 * share)
                click.echo(f"\r\033[K{stage:<10} [{bar:<30}] {share:4.0%}", nl=False, err=True)
                self._shown = True

    def clear(self) -> None:
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)
            self._shown = False
