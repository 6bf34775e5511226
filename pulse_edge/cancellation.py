"""Cancels or pauses a request, also in the middle of a call that takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancelled(BaseException):
    """Unwinds a request that was cancelled before its first token.

    Not an `Exception`, so that no engine takes it for a failure of its own.
    """


class Paused(BaseException):
    """Unwinds a request that gives way to another one, and goes on later.

    Not an `Exception`, so that no engine takes it for a failure of its own.
    """


class Cancellation:
    """One request's stop signal. Any thread gives it; the thread that runs the request obeys.

    Work in short steps looks at `requested` between them, or calls `check`. A long call says by
    `interrupting` how to end it early. There is no lock, because `request` is also called by
    finalizers, which run at any time in any thread.

    Attributes:
        requested: whether the request must stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interrupt: Callable[[], None] | None = None

    def request(self) -> None:
        """Stop the request. From any thread; waits for nothing."""
        self.requested = True
        interrupt = self._interrupt
        if interrupt is not None:
            interrupt()

    def check(self) -> None:
        """Raises `Cancelled` if the request must stop."""
        if self.requested:
            raise Cancelled

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Let `request` end the block early.

        Args:
            interrupt: makes the call in the block raise an exception. Another thread calls it,
                perhaps just after the block has ended, so it must not affect a later call.

        Raises:
            Cancelled: the request must stop. Either the block did not run, or it raised an
                exception after the request to stop; that exception is assumed to be the
                interrupt's.
        """
        # Register before the check: a signal that comes between the two is then seen by both.
        self._interrupt = interrupt
        try:
            self.check()
            yield
        except Exception:
            self.check()
            raise
        finally:
            self._interrupt = None
