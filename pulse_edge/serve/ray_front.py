"""The application before the replicas: finds the page of a request and relays it to its replica.

A replica that dies takes its requests with it. Their clients get a 503 that says they may try
again, or, if the answer had begun, an error as the last event of the stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, MutableMapping
from functools import partial
from typing import Any

from pulse_edge.serve.keys import Keys
from pulse_edge.serve.ray_pages import KnownPages
from pulse_edge.serve.ray_request import ForwardedRequest, Message, Receive, Send

PAGES = "/v1/pages"
NO_KEYS = Keys()
MOST_BODY = 32 << 20  # bytes; more is refused before a replica sees it
MOST_LEARNED = 64 << 10  # bytes of a reply that are read for a page's id
RETRY_AFTER = 2  # seconds

Relay = Callable[[ForwardedRequest], AsyncGenerator[Message, None]]


class PageFront:
    """An ASGI application.

    Args:
        relay: sends a request to its replica and yields what that sends.
        lost: exceptions of `relay` that mean that the replica is gone.
        full: exceptions of `relay` that mean that too many requests wait.
        keys: those that clients must send. Without one of them a body is not read.
        most_body: bytes of a request's body.
    """

    def __init__(
        self,
        relay: Relay,
        lost: tuple[type[Exception], ...],
        full: tuple[type[Exception], ...] = (),
        keys: Keys = NO_KEYS,
        most_body: int = MOST_BODY,
    ) -> None:
        self._relay = relay
        self._lost = lost
        self._full = full
        self._keys = keys
        self._most_body = most_body
        self._pages = KnownPages()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        known = self._keys.admit(headers.get(b"authorization", b"").decode("latin-1"))
        body = await _body(receive, self._most_body) if known else b""
        if body is None:
            await _refuse(send, 413, f"the body is over {self._most_body} bytes", retry=False)
            return
        page = self._pages.name(scope, body)
        keeps = scope["method"] == "POST" and scope["path"] == PAGES
        reply = _Reply(send, keeps, partial(self._pages.note, name=page))
        stream = self._relay(ForwardedRequest.of(scope, body, page))
        try:
            await _until_gone(stream, reply, receive)
        except self._full:
            await _refuse(send, 429, "too many requests wait for a replica", retry=False)
        except self._lost:
            await reply.fail()
        else:
            if reply.kept:
                self._pages.learn(page, bytes(reply.kept))


class _Reply:
    """What has been sent to the client."""

    def __init__(self, send: Send, keeps: bool, note: Callable[[str], None]) -> None:
        self._send = send
        self._keeps = keeps
        self._note = note
        self._started = False
        self._events = False
        self.kept = bytearray()

    async def put(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers = {bytes(name): bytes(value) for name, value in message.get("headers", ())}
            self._events = headers.get(b"content-type", b"").startswith(b"text/event-stream")
            if request := headers.get(b"x-request-id"):
                self._note(request.decode("latin-1"))
        elif self._keeps and len(self.kept) < MOST_LEARNED:
            self.kept += message.get("body", b"")
        await self._send(message)

    async def fail(self) -> None:
        """Tell the client that the replica is gone."""
        text = "the replica that had this request is gone; ask again"
        if not self._started:
            await _refuse(self._send, 503, text, retry=True)
        elif self._events:
            event = b"data: " + _error_body(503, text) + b"\n\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
        else:  # a client notices a body that is shorter than its length
            raise ConnectionError(text)


async def _until_gone(
    stream: AsyncGenerator[Message, None], reply: _Reply, receive: Receive
) -> None:
    """Pass messages on until there are no more, or until the client leaves."""
    left = asyncio.ensure_future(_disconnected(receive))
    try:
        while True:
            following = asyncio.ensure_future(anext(stream, None))
            await asyncio.wait({following, left}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                return
            message = following.result()
            if message is None:
                return
            await reply.put(message)
    finally:
        left.cancel()
        await stream.aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(receive: Receive, most: int) -> bytes | None:
    """A request's body; None if it is too long."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _refuse(send: Send, status: int, text: str, *, retry: bool) -> None:
    headers = [(b"content-type", b"application/json")]
    headers.append((b"x-should-retry", b"true" if retry else b"false"))
    if status in (429, 503):
        headers.append((b"retry-after", str(RETRY_AFTER).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send(
        {"type": "http.response.body", "body": _error_body(status, text), "more_body": False}
    )


def _error_body(status: int, text: str) -> bytes:
    """OpenAI's body of an error."""
    names = {413: "body_too_large", 429: "queue_full", 503: "replica_lost"}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": text, "type": kind, "code": names[status], "param": None}
    return json.dumps({"error": error}).encode()


async def _live(receive: Receive, send: Send) -> None:
    """The server's start and end; there is nothing to prepare."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
