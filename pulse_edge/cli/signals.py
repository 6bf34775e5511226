"""Signals that end the command: Ctrl-C, SIGTERM and SIGHUP.

The first one raises an exception in the main thread, so that what the command has begun is cleared
away. This module imports little, because it must be ready before everything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

FIRST = 128  # an exit code is this and the signal's number, as shells have it
GRACE = 2.0  # seconds for clearing away, in which further signals change nothing
AGAIN = 0.01  # seconds until an exception that was lost is raised again
NO_MEMORY = 12  # exit code, as in `EXIT_CODES`
WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}


class Terminated(BaseException):
    """SIGTERM or SIGHUP came. Not an `Exception`, so that nobody takes it for a failure."""


class Signals:
    """What a signal does at each stage of the command.

    While the command starts, and once it has reported how it ended, a signal ends the process at
    once. In between it raises `KeyboardInterrupt` or `Terminated`. A second signal within `GRACE`
    changes nothing, so that two quick Ctrl-C are one; a later one ends the process at once.

    Attributes:
        received: number of the first signal; 0 before one came.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0  # time.monotonic() of the first signal
        self._raising = False

    def install(self) -> None:
        """Take over the signals, but those that somebody ignores or handles: `nohup` must work."""
        for name in WORDS:
            number = getattr(signal, name, None)
            if number is None:  # Windows has no SIGHUP
                continue
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._handle)
        sys.unraisablehook = self._keep

    def begin(self) -> None:
        """From here on a signal raises."""
        self._raising = True

    def finish(self) -> None:
        """From here on a signal ends the process at once."""
        self._raising = False

    def forget(self) -> None:
        """The signal was obeyed, and the command goes on: the next one is a first one again."""
        self.received = 0

    @property
    def word(self) -> str:
        """What to say about the signal."""
        return WORDS[signal.Signals(self.received or signal.SIGINT).name]

    @property
    def code(self) -> int:
        """Exit code of a process that the signal ends."""
        return FIRST + (self.received or signal.SIGINT)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = not self.received
        self.received = self.received or number
        if not self._raising:
            self._end()
        if first:
            self._since = time.monotonic()
            self._raise()
        if time.monotonic() - self._since > GRACE:
            self._end()

    def _raise(self) -> NoReturn:
        raise KeyboardInterrupt if self.received == signal.SIGINT else Terminated

    def _end(self) -> NoReturn:
        try:
            os.write(2, f"{self.word}\n".encode())
        finally:
            os._exit(self.code)

    def _keep(self, lost: sys.UnraisableHookArgs) -> None:
        """Raise a signal's exception again that Python has dropped, as it does in finalizers.

        A thread that found no memory to begin ends the process: whoever started it waits for ever.
        """
        if issubclass(lost.exc_type, MemoryError) and _is_start_of_thread(lost.object):
            os.write(2, b"error: not enough memory to start a thread\n")
            os._exit(NO_MEMORY)
        if not issubclass(lost.exc_type, (KeyboardInterrupt, Terminated)):
            sys.__unraisablehook__(lost)
        elif hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, lambda *_: self._raise())
            signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _is_start_of_thread(thing: object) -> bool:
    return getattr(thing, "__name__", None) == "_bootstrap"  # of `threading.Thread`


signals = Signals()
