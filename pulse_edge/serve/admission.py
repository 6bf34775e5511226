"""Which requests are under way: a bounded number of them, each of which can be cancelled."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from statistics import median

from pulse_edge.errors import QueueFullError
from pulse_edge.serve.refusals import RETRY, Refusal

RECENT = 32  # requests whose seconds predict the next one's


class Ticket:
    """A request that was admitted.

    Attributes:
        id: made here, without anything that a client has sent; logs may show it.
        cancelled: whether it must end.
        left: whether its client has hung up.
    """

    def __init__(self, name: str | None) -> None:
        self.id = secrets.token_hex(12)
        self.name = name  # that its client has chosen
        self.begun = time.monotonic()
        self.cancelled = False
        self.left = False
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None

    def cancel(self) -> None:
        """End it as soon as that is possible. From any thread."""
        with self._lock:
            self.cancelled = True
            stop = self._stop
        if stop is not None:
            stop()

    def on_cancel(self, stop: Callable[[], None]) -> None:
        """Say how to end it. Called at once if it must end already.

        Args:
            stop: may be called from any thread, and more than once.
        """
        with self._lock:
            self._stop = stop
            cancelled = self.cancelled
        if cancelled:
            stop()


class Admission:
    """Admits requests, up to a number.

    A request has a place from before its body is read until its work is done, so memory and threads
    are bounded by the number of places.

    Args:
        places: requests at a time, the running one among them.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.draining = False
        self._tickets: dict[str, Ticket] = {}
        self._seconds: list[float] = []
        self._lock = threading.Lock()

    @property
    def under_way(self) -> int:
        return len(self._tickets)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the requests that are under way."""
        return tuple(self._tickets)

    def admit(self, name: str | None = None) -> Ticket:
        """A place for a request; `release` gives it back.

        Args:
            name: that the client has chosen, to cancel it by.

        Raises:
            QueueFullError: all places are taken.
            Refusal: the server is stopping, or the name is in use.
        """
        with self._lock:
            if self.draining:
                raise Refusal(
                    "the server is stopping; ask another one, or later", 503, "stopping",
                    kind="server_error", headers=RETRY | {"retry-after": "5"},
                )  # fmt: skip
            if len(self._tickets) >= self.places:
                raise QueueFullError(
                    f"{self.places} requests are under way already; ask again later",
                    median(self._seconds) if self._seconds else 1.0,
                )
            if name is not None and any(name == other.name for other in self._tickets.values()):
                raise Refusal("the request id is in use; choose another one", 400, "id_in_use")
            ticket = Ticket(name)
            self._tickets[ticket.id] = ticket
            return ticket

    def release(self, ticket: Ticket) -> None:
        """Give a place back; again is fine."""
        with self._lock:
            if self._tickets.pop(ticket.id, None) is not None:
                self._seconds = [*self._seconds, time.monotonic() - ticket.begun][-RECENT:]

    def find(self, name: str) -> Ticket | None:
        """The ticket of an id, ours or the client's."""
        with self._lock:
            own = self._tickets.get(name)
            return own or next((t for t in self._tickets.values() if t.name == name), None)

    def cancel_all(self) -> None:
        """End every request."""
        with self._lock:
            tickets = tuple(self._tickets.values())
        for ticket in tickets:
            ticket.cancel()

    def close(self) -> None:
        """End every request and admit no more. Waits for nothing."""
        self.draining = True
        self.cancel_all()


def start_thread(work: Callable[[], None], name: str) -> None:
    """Run something in a thread of its own.

    It is a daemon: an engine's call that hangs must not keep the process from ending. There is no
    pool, because the number of tickets bounds the threads.

    Args:
        work: raises nothing.
        name: of the thread.

    Raises:
        QueueFullError: the system has no thread left.
    """
    try:
        threading.Thread(target=work, name=f"pulse-edge {name}", daemon=True).start()
    except (RuntimeError, MemoryError):
        raise QueueFullError("no thread is left for this request; ask again later", 1.0) from None
