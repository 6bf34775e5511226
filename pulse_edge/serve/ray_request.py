"""A request on its way from the front to a replica, and the ASGI application that answers it there.

Ray's proxy hands a request to one deployment before its body is read. The front reads the body,
because the page in it decides which replica is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Message = MutableMapping[str, Any]  # of ASGI
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# What an application reads of an ASGI scope, and what can be sent to another process.
SCOPE = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string"),
    *("root_path", "headers", "client", "server"),
)
WAITING = 64  # messages of a reply that wait for a slow reader

_ending: set[asyncio.Task[None]] = set()  # calls that nobody reads any more; until they end


@dataclass(frozen=True)
class ForwardedRequest:
    """A whole HTTP request.

    Attributes:
        scope: of ASGI, reduced to `SCOPE`.
        body: all of it.
        page: names the page that it is about; "" if there is none.
    """

    scope: dict[str, Any]
    body: bytes
    page: str

    @classmethod
    def of(cls, scope: MutableMapping[str, Any], body: bytes, page: str) -> ForwardedRequest:
        """Keep of a scope what a replica needs."""
        return cls({name: scope[name] for name in SCOPE if name in scope}, body, page)


async def replies(app: Application, request: ForwardedRequest) -> AsyncGenerator[Message, None]:
    """Run an application for one request, and yield what it sends.

    When the reader leaves, the application is told that the client has disconnected.
    """
    sent: asyncio.Queue[Message | None] = asyncio.Queue(WAITING)
    gone = asyncio.Event()
    pending: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if not gone.is_set():
            await sent.put(message)

    async def run() -> None:
        try:
            await app(dict(request.scope), receive, send)
        finally:
            if not gone.is_set():
                await sent.put(None)

    task = asyncio.create_task(run())
    try:
        while (message := await sent.get()) is not None:
            yield message
        await task
    finally:
        gone.set()
        _let_end(task, sent)


def _let_end(task: asyncio.Task[None], sent: asyncio.Queue[Message | None]) -> None:
    """Leave a call that nobody reads to itself: it has been told, and ends within a step."""
    while not sent.empty():  # it may wait for room
        sent.get_nowait()
    if not task.done():
        _ending.add(task)
        task.add_done_callback(_ended)


def _ended(task: asyncio.Task[None]) -> None:
    _ending.discard(task)
    if not task.cancelled():
        task.exception()  # the client has left; asyncio would log it
