"""Sends one streamed request, by httpx or by a plain socket, and notes when its tokens came."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.serve.workload import PlannedRequest

PATH = "/v1/chat/completions"
HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True)
class Outcome:
    """What became of a request. Seconds count from `due`, when it should have been sent.

    Attributes:
        kind: of the request.
        due: seconds after the run's start.
        late: seconds after `due` at which it was sent; more than a little means that this program
            could not keep up.
        error: what failed, as status and code; "" if the answer is complete.
        ttft: to the first text; None without one.
        end: to the last byte.
        span: seconds from the first text to the last; None without one.
        tpot: `span` by the tokens after the first; None below two.
        tokens: of the answer.
        cached: tokens of the prompt that the server had already.
        text: the answer.
    """

    kind: str
    due: float
    late: float
    error: str
    ttft: float | None
    end: float
    span: float | None
    tpot: float | None
    tokens: int
    cached: int
    text: str


class _Reading:
    """The events of one response, as they come."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last: float | None = None
        self.pieces: list[str] = []
        self.usage: dict[str, Any] = {}
        self.error = ""
        self.done = False
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        """Take bytes of the response."""
        now = time.perf_counter()
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: "):
                self._event(line[6:].strip(), now)

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        record = json.loads(data)
        if "error" in record:
            self.error = f"stream {record['error'].get('code')}"
            return
        self.usage = record.get("usage") or self.usage
        for choice in record.get("choices", ()):
            if text := choice.get("delta", {}).get("content"):
                self.first = self.first or now
                self.last = now
                self.pieces.append(text)

    def outcome(
        self, request: PlannedRequest, error: str, begun: float, zero: float, due: float
    ) -> Outcome:
        """What became of a request that has ended now.

        Args:
            request: that was sent.
            error: "" if nothing else than its events can say what failed.
            begun: `time.perf_counter` when it was sent.
            zero: the same when it was due.
            due: seconds after the run's start.
        """
        end = time.perf_counter()
        tokens = int(self.usage.get("completion_tokens", 0))
        details = self.usage.get("prompt_tokens_details") or {}
        first, last = self.first, self.last
        span = None if first is None or last is None else last - first
        return Outcome(
            kind=request.kind,
            due=due,
            late=begun - zero,
            error=error or self.error or ("" if self.done else "incomplete"),
            ttft=None if first is None else first - zero,
            end=end - zero,
            span=span,
            tpot=None if span is None or tokens < 2 else span / (tokens - 1),
            tokens=tokens,
            cached=int(details.get("cached_tokens", 0)),
            text="".join(self.pieces),
        )


async def send(
    client: httpx.AsyncClient, request: PlannedRequest, start: float, due: float
) -> Outcome:
    """Send a request and read its answer to the end.

    Args:
        client: with the server's address and a timeout.
        request: to send.
        start: `time.perf_counter` at the run's start.
        due: seconds after it.
    """
    begun = time.perf_counter()
    reading = _Reading()
    error = ""
    try:
        async with client.stream("POST", PATH, content=request.body, headers=HEADERS) as response:
            if response.status_code != 200:
                error = _error_of(response.status_code, await response.aread())
            else:
                async for chunk in response.aiter_raw():
                    reading.feed(chunk)
    except httpx.TimeoutException:
        error = "timeout"
    except httpx.HTTPError as problem:
        error = f"connection {type(problem).__name__}"
    return reading.outcome(request, error, begun, start + due, due)


def open_plainly(url: str, timeout: float) -> http.client.HTTPConnection:
    """A connection for `send_plainly`.

    Args:
        url: of the server.
        timeout: seconds without a byte after which a request has failed.
    """
    address = urlsplit(url)
    return http.client.HTTPConnection(address.hostname or "", address.port, timeout=timeout)


def send_plainly(
    connection: http.client.HTTPConnection, request: PlannedRequest, key: str | None = None
) -> Outcome:
    """Send a request and read its answer to the end, without httpx.

    httpx spends 1 to 2 ms on a request in this process. Where milliseconds of the server are
    measured, that does not belong to them.

    Args:
        connection: from `open_plainly`, for one request at a time.
        request: to send.
        key: that the server asks for.
    """
    headers = HEADERS if key is None else HEADERS | {"authorization": f"Bearer {key}"}
    reading = _Reading()
    error = ""
    begun = time.perf_counter()
    try:
        connection.request("POST", PATH, request.body, headers)
        response = connection.getresponse()
        if response.status != 200:
            error = _error_of(response.status, response.read())
        while chunk := response.read1(1 << 16):
            reading.feed(chunk)
    except (OSError, http.client.HTTPException) as problem:
        error = f"connection {type(problem).__name__}"
        connection.close()
    return reading.outcome(request, error, begun, begun, 0.0)


def _error_of(status: int, body: bytes) -> str:
    try:
        return f"{status} {json.loads(body)['error']['code']}"
    except (ValueError, KeyError, TypeError):
        return str(status)


def open_client(url: str, timeout: float, key: str | None = None) -> httpx.AsyncClient:
    """A client for any number of requests at a time; no proxy stands between.

    Args:
        url: of the server.
        timeout: seconds without a byte after which a request has failed.
        key: that the server asks for.
    """
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(
        base_url=url, timeout=timeout, limits=limits, headers=headers, trust_env=False
    )


async def gather_outcomes(tasks: list[asyncio.Task[Outcome]]) -> list[Outcome]:
    """Outcomes of tasks, which do not raise but for a fault of this program."""
    return list(await asyncio.gather(*tasks))
