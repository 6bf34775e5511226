"""A request's work in a thread, with its results on the event loop.

The model's calls block, so each admitted request has a thread. What it produces goes to the loop as
events; a client that leaves cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from pulse_edge.errors import PulseEdgeError
from pulse_edge.serve.admission import Admission, Ticket, start_thread
from pulse_edge.serve.refusals import NO_RETRY, Refusal

T = TypeVar("T")


@dataclass(frozen=True)
class End:
    """The last event of a request: what its work returned, or raised."""

    value: Any = None
    error: BaseException | None = None


class Exchange:
    """The events of one request. Made on the loop, which alone reads it.

    Args:
        ticket: of the request.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._end: End | None = None

    def tell(self, event: Any) -> None:
        """Hand an event over. From any thread; waits for nothing."""
        with suppress(RuntimeError):  # the loop has ended, and the server with it
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self, seconds: float | None = None) -> Any:
        """The next event; an `End` again and again once there was one.

        Raises:
            TimeoutError: there is none within `seconds`.
        """
        if self._end is not None:
            return self._end
        async with asyncio.timeout(seconds):
            event = await self._events.get()
        if isinstance(event, End):
            self._end = event
        return event

    async def result(self) -> Any:
        """What the work returned. Raises what it raised."""
        event = await self.next()
        while not isinstance(event, End):
            event = await self.next()
        if event.error is not None:
            raise event.error
        return event.value


def begin(admission: Admission, ticket: Ticket, work: Callable[[Exchange], T]) -> Exchange:
    """Run the work of an admitted request in a thread. Its place is free once the work is done.

    Args:
        admission: that has given the ticket.
        ticket: of the request.
        work: returns the result.

    Raises:
        QueueFullError: there is no thread for it. The place is still the caller's.
    """
    exchange = Exchange(ticket)

    def run() -> None:
        end = End(error=RuntimeError("the work did not run"))
        try:
            end = End(work(exchange))
        except BaseException as error:  # also what is no Exception: the loop must hear an end
            end = End(error=_as_cancelled(error, ticket.left) if ticket.cancelled else error)
        finally:
            admission.release(ticket)
            exchange.tell(end)

    start_thread(run, "request")
    return exchange


def _as_cancelled(error: BaseException, left: bool) -> BaseException:
    """What a cancelled request raises, perhaps before its work began; `left`: its client has."""
    if isinstance(error, Refusal) or not isinstance(error, PulseEdgeError | ClientDisconnect):
        return error
    if left:
        return ClientDisconnect()
    return Refusal(
        "the request was cancelled", 409, "cancelled", kind="cancelled", headers=NO_RETRY
    )


@asynccontextmanager
async def cancelled_by_leaving(request: Request, ticket: Ticket) -> AsyncIterator[None]:
    """Cancel a request when its client leaves, or when this block ends early.

    Args:
        request: whose body was read.
        ticket: of the request.
    """
    watch = asyncio.create_task(_watch(request, ticket))
    try:
        yield
    except BaseException:
        ticket.cancel()
        raise
    finally:
        watch.cancel()


async def _watch(request: Request, ticket: Ticket) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
    ticket.left = True
    ticket.cancel()


def check_present(ticket: Ticket) -> None:
    """Raises `ClientDisconnect` if the request was cancelled already."""
    if ticket.cancelled:
        raise ClientDisconnect
