"""How long a request may take, from its submission to its last token."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pulse_edge.errors import ParameterError


@dataclass(frozen=True)
class DeadlineReport:
    """What became of a deadline.

    Args:
        deadline_s: seconds that the request had, from its submission on.
        predicted_s: seconds that were predicted at its submission; None if nothing was known.
        met: whether the answer was whole in time.
        skipped: the stages that were not reached or not finished, in order.
    """

    deadline_s: float
    predicted_s: float | None
    met: bool
    skipped: tuple[str, ...] = ()


class Deadline:
    """Seconds from now on, in which a request must end.

    Args:
        seconds: over 0.

    Raises:
        ParameterError: `seconds` is out of range.
    """

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise ParameterError(f"deadline_s is {seconds!r}, but must be seconds over 0")
        self.seconds = float(seconds)
        self._end = time.monotonic() + self.seconds

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining == 0

    def watch(self, act: Callable[[], None]) -> Alarm:
        """Call `act` from a thread of its own when the deadline passes, unless it is stopped."""
        return Alarm(self.remaining, act)


class Alarm:
    """Calls a function after some seconds, in a thread of its own.

    `threading.Timer` is stopped through a lock, which a finalizer that runs in the midst of that
    would wait for for ever. A `SimpleQueue` is reentrant.
    """

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self._stops: SimpleQueue[None] = SimpleQueue()
        bounded = min(seconds, threading.TIMEOUT_MAX)
        threading.Thread(
            target=_ring, args=(self._stops, bounded, act), name="pulse-edge deadline", daemon=True
        ).start()

    def stop(self) -> None:
        """Do not call the function any more. From any thread; waits for nothing."""
        self._stops.put(None)


def _ring(stops: SimpleQueue[None], seconds: float, act: Callable[[], None]) -> None:
    try:
        stops.get(timeout=seconds)
    except Empty:
        act()
