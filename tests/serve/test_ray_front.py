"""The application before the replicas, with applications in this process instead of Ray's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from pulse_edge.serve.keys import Keys
from pulse_edge.serve.ray_front import PageFront
from pulse_edge.serve.ray_request import ForwardedRequest, Message, Receive, Send, replies

PAGE = "0" * 64
KEY = "a key of 16 or more"


class ReplicaLostError(Exception):
    pass


class QueueIsFullError(Exception):
    pass


def scope(method: str = "POST", path: str = "/v1/pages", **headers: str) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": pairs, "state": object()}


class Client:
    """One request: what it sends, and what it got."""

    def __init__(self, *parts: bytes, leaves: bool = False) -> None:
        self._parts = [*parts] or [b""]
        self._leaves = leaves
        self.got: list[Message] = []

    async def receive(self) -> Message:
        if self._parts:
            body = self._parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._parts)}
        if not self._leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.got[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.got)


class Replica:
    """Answers with what it was sent, or fails after some messages."""

    def __init__(self, fails_after: int | None = None, error: Exception | None = None) -> None:
        self.requests: list[ForwardedRequest] = []
        self.ended = 0
        self._fails_after = fails_after
        self._error = error or ReplicaLostError()
        self.kind = b"application/json"

    async def relay(self, request: ForwardedRequest) -> AsyncGenerator[Message, None]:
        self.requests.append(request)
        headers = [(b"content-type", self.kind), (b"x-request-id", b"r1")]
        body = json.dumps({"id": PAGE}).encode()
        messages: list[Message] = [
            {"type": "http.response.start", "status": 201, "headers": headers},
            {"type": "http.response.body", "body": body, "more_body": True},
            {"type": "http.response.body", "body": b" ", "more_body": False},
        ]
        try:
            for number, message in enumerate(messages):
                if number == self._fails_after:
                    raise self._error
                yield message
        finally:
            self.ended += 1


def front_of(replica: Replica, **options: Any) -> PageFront:
    return PageFront(replica.relay, (ReplicaLostError,), (QueueIsFullError,), **options)


def ask(front: PageFront, client: Client, request: dict[str, Any] | None = None) -> Client:
    asyncio.run(front(request or scope(), client.receive, client.send))
    return client


def test_a_request_is_passed_on_whole() -> None:
    replica = Replica()
    client = ask(front_of(replica), Client(b"one ", b"two"))
    (request,) = replica.requests
    assert request.body == b"one two"
    assert "state" not in request.scope
    assert client.status == 201
    assert json.loads(client.body) == {"id": PAGE}
    assert replica.ended == 1


def test_a_page_is_found_again_by_its_id_and_its_request() -> None:
    replica = Replica()
    front = front_of(replica)
    ask(front, Client(b"a page"))
    ask(front, Client(), scope("GET", f"/v1/pages/{PAGE}"))
    ask(front, Client(), scope("DELETE", "/v1/requests/r1"))
    first, *others = [request.page for request in replica.requests]
    assert others == [first, first]


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(ReplicaLostError(), 503, b"true"), (QueueIsFullError(), 429, b"false")],
)
def test_a_failure_before_the_reply(error: Exception, status: int, retry: bytes) -> None:
    client = ask(front_of(Replica(0, error)), Client(b"page"))
    assert client.status == status
    assert client.headers[b"x-should-retry"] == retry
    assert int(client.headers[b"retry-after"]) > 0
    assert json.loads(client.body)["error"].keys() == {"message", "type", "code", "param"}


@pytest.mark.parametrize("sent", [1, 2])
def test_a_stream_that_breaks_ends_with_an_error(sent: int) -> None:
    replica = Replica(sent)
    replica.kind = b"text/event-stream; charset=utf-8"
    client = ask(front_of(replica), Client(b"page"))
    assert client.status == 201
    last = client.got[-1]
    assert json.loads(last["body"].removeprefix(b"data: "))["error"]["code"] == "replica_lost"
    assert last["more_body"] is False
    assert b"[DONE]" not in client.body


def test_a_reply_that_breaks_is_left_incomplete() -> None:
    client = Client(b"page")
    with pytest.raises(ConnectionError, match="gone"):
        ask(front_of(Replica(1)), client)
    assert len(client.got) == 1


def test_another_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(front_of(Replica(0, ZeroDivisionError())), Client(b"page"))


def test_a_body_over_the_limit_is_refused_early() -> None:
    replica = Replica()
    client = ask(front_of(replica, most_body=10), Client(b"123456", b"78901", b"never read"))
    assert client.status == 413
    assert replica.requests == []


def test_a_body_without_a_key_is_not_read() -> None:
    replica = Replica()
    front = front_of(replica, keys=Keys((KEY,)), most_body=10)
    ask(front, Client(b"a body that is too long"))
    ask(front, Client(b"page"), scope(authorization=f"Bearer {KEY}"))
    assert [request.body for request in replica.requests] == [b"", b"page"]


def test_the_replica_hears_of_a_client_that_leaves() -> None:
    heard: list[str] = []

    async def app(_: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        heard.append((await receive())["type"])

    async def run() -> None:
        front = PageFront(lambda request: replies(app, request), ())
        client = Client(b"page", leaves=True)
        await asyncio.wait_for(front(scope(), client.receive, client.send), 10)
        for _ in range(100):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert heard == ["http.disconnect"]


def test_the_life_of_the_server() -> None:
    events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return events.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(front_of(Replica())({"type": "lifespan"}, receive, send))
    kinds = [message["type"] for message in sent]
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
