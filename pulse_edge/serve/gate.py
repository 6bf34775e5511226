"""What every request passes first and last: hosts, keys, errors, the log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pulse_edge.serve.bodies import discard_body
from pulse_edge.serve.facts import KEY, Facts
from pulse_edge.serve.keys import Keys
from pulse_edge.serve.logs import log_event, place_of
from pulse_edge.serve.refusals import INVALID, Refusal, refusal_of
from pulse_edge.serve.service import Service

OPEN = ("/health", "/")  # what needs no key: a sign of life, and a page without data
LEFT = 499  # the status in logs of a client that left, as nginx has it
ALWAYS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Gate:
    """The outermost layer of the app.

    Args:
        app: what is behind it.
        service: whose settings hold.
        keys: that clients must send.
        paths: of routes by their endpoints, for logs and figures: what a client asks for may hold
            a name.
    """

    def __init__(
        self, app: ASGIApp, service: Service, keys: Keys, paths: Mapping[Any, str]
    ) -> None:
        self._app = app
        self._paths = paths
        self._service = service
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, receive, send)
        refusal: Refusal | None = None
        try:
            self._check(scope)
            await self._app(scope, passage.receive, passage.send)
        except ClientDisconnect:
            passage.status = LEFT
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status == 500:
                passage.facts.error = place_of(error)
        if refusal is not None:
            passage.facts.code = refusal.code
            await self._refuse(refusal, passage)
        self._record(scope, passage)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._keys and not _is_known_host(host, self._service.config.host):
            # A page elsewhere could let its own name point here, and read what it may not.
            raise Refusal(
                "the header Host is not this server's address; use the address it printed",
                421, "unknown_host", kind=INVALID,
            )  # fmt: skip
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refusal(
                "requests from pages of other servers are not taken", 403, "foreign_origin"
            )
        if scope["path"] in OPEN and scope["method"] in ("GET", "HEAD"):
            return
        if not self._keys.admit(headers.get("authorization", "")):
            raise Refusal(
                "a key is missing or wrong; send 'Authorization: Bearer KEY'", 401,
                "invalid_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip

    async def _refuse(self, refusal: Refusal, passage: _Passage) -> None:
        if passage.started:
            return  # the server closes the connection of a response that has no end
        if not passage.body_read:
            await discard_body(Request(passage.scope, passage.receive), self._service.config)
        response = JSONResponse(refusal.body, refusal.status, refusal.headers)
        await response(passage.scope, passage.receive, passage.send)

    def _record(self, scope: Scope, passage: _Passage) -> None:
        route = self._paths.get(scope.get("endpoint"), "other")
        metrics = self._service.metrics
        metrics.requests.labels(route, str(passage.status)).inc()
        facts = passage.facts
        if facts.code:
            metrics.refusals.labels(facts.code).inc()
        if facts.answer is not None:
            metrics.observe(facts.answer)
        log_event(
            "request",
            method=scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other",
            route=route,
            status=passage.status,
            seconds=round(time.perf_counter() - passage.begun, 4),
            **facts.record(),
        )


class _Passage:
    """One request on its way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.facts = Facts()
        self.begun = time.perf_counter()
        self.status = LEFT
        self.started = False
        self.body_read = False
        self._receive = receive
        self._send = send
        scope[KEY] = self.facts

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self.body_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers: list[Any] = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            more = [pair for pair in ALWAYS if pair[0] not in present]
            if self.facts.id:
                more.append((b"x-request-id", self.facts.id.encode()))
            message = {**message, "headers": headers + more}
        await self._send(message)


def _is_known_host(header: str, host: str) -> bool:
    name, _, port = header.rpartition(":")
    if not name or not port.isdigit():
        name = header
    own = f"[{host}]" if ":" in host else host
    return name.lower() in (*LOOPBACK_NAMES, own.lower())
