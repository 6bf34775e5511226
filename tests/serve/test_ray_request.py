"""An ASGI application that answers a request which came in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from pulse_edge.serve.ray_request import WAITING, ForwardedRequest, Message, Receive, Send, replies

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/",
    "headers": [],
    "extensions": {"no": object()},
}
START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def request(body: bytes = b"body") -> ForwardedRequest:
    return ForwardedRequest.of(SCOPE, body, "page")


def test_only_what_can_be_sent_is_kept_of_a_scope() -> None:
    assert request().scope.keys() == {"type", "method", "path", "headers"}


def test_all_messages_in_order() -> None:
    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = await receive()
        await send(START)
        for number in range(3 * WAITING):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.body", "body": body["body"]})

    async def run() -> list[Message]:
        return [message async for message in replies(app, request(b"the end"))]

    start, *parts = asyncio.run(run())
    assert start == START
    expected = [b"%d" % number for number in range(3 * WAITING)] + [b"the end"]
    assert [part["body"] for part in parts] == expected


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_an_error_of_the_application_reaches_the_caller(sent: int) -> None:
    got: list[Message] = []

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for _ in range(sent):
            await send(START)
        raise KeyError("gone")

    async def run() -> None:
        async for message in replies(app, request()):
            got.append(message)

    with pytest.raises(KeyError, match="gone"):
        asyncio.run(run())
    assert len(got) == sent


@pytest.mark.parametrize("fails", [False, True])
def test_a_reader_that_leaves_ends_the_application(fails: bool) -> None:
    ended: list[str] = []

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(2 * WAITING):  # more than waits for a reader
            await send(START)
        ended.append((await receive())["type"])
        if fails:
            raise ValueError("nobody reads this")

    async def run() -> None:
        stream = replies(app, request())
        await anext(stream)
        await stream.aclose()
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert ended == ["http.disconnect"]
