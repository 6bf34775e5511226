"""An answer as server-sent events, with comments while nothing is there to send."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pulse_edge.serve.asking import Piece
from pulse_edge.serve.completions import CompletionForm, error_event, event
from pulse_edge.serve.exchange import End, Exchange, cancelled_by_leaving
from pulse_edge.serve.facts import Facts
from pulse_edge.serve.logs import place_of
from pulse_edge.serve.refusals import refusal_of
from pulse_edge.serve.service import Service

DONE = b"data: [DONE]\n\n"
_HEADERS: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",  # or nginx keeps events until its buffer is full
}


class EventStream(Response):
    """The response of a streamed completion.

    Args:
        service: that answers.
        exchange: of the request.
        form: writes the chunks.
        include_usage: whether a chunk of token counts ends it.
        heartbeat: seconds between two comments of a stream that waits.
        first: the first event; None if there was none within the heartbeat.
        facts: get the answer.
    """

    def __init__(
        self,
        service: Service,
        exchange: Exchange,
        form: CompletionForm,
        include_usage: bool,
        heartbeat: float,
        first: Any,
        facts: Facts,
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._service = service
        self._exchange = exchange
        self._form = form
        self._include_usage = include_usage
        self._heartbeat = heartbeat
        self._first = first
        self._facts = facts
        self._told = 0  # tokens whose log-probabilities went out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the last one."""
        async with cancelled_by_leaving(Request(scope, receive), self._exchange.ticket):
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await self._send(send, start)
            opening = event(self._form.first_chunk())
            upcoming = self._first
            if not isinstance(upcoming, End):  # in one write, so that the first text is not late
                opening += self._encoded(upcoming)
                upcoming = None
            await self._put(send, opening)
            if upcoming is None:
                upcoming = await self._next()
            while not isinstance(upcoming, End):
                if not self._exchange.ticket.left:
                    await self._put(send, self._encoded(upcoming))
                upcoming = await self._next()
            ending = self._ending(upcoming)
            if self._exchange.ticket.left:
                return
            await self._put(send, ending)
            await self._send(send, {"type": "http.response.body", "body": b""})

    async def _next(self) -> Any:
        """The next event, or None after a heartbeat without one."""
        try:
            return await self._exchange.next(self._heartbeat)
        except TimeoutError:
            return None

    def _encoded(self, upcoming: Piece | None) -> bytes:
        if upcoming is None:
            return self._comment()
        self._told += len(upcoming.logprobs)
        return self._form.text_event(upcoming.text, upcoming.logprobs)

    def _comment(self) -> bytes:
        return f": waiting {self._service.stages}".rstrip().encode() + b"\n\n"

    def _ending(self, end: End) -> bytes:
        if isinstance(end.error, ClientDisconnect):
            return b""
        if end.error is not None:
            refusal = refusal_of(end.error)
            self._facts.code = refusal.code
            if refusal.code == "internal":
                self._facts.error = place_of(end.error)
            return error_event(refusal) + DONE
        self._facts.answer = end.value
        last = event(self._form.last_chunk(end.value, self._told))
        usage = event(self._form.usage_chunk(end.value)) if self._include_usage else b""
        return last + usage + DONE

    async def _put(self, send: Send, data: bytes) -> None:
        await self._send(send, {"type": "http.response.body", "body": data, "more_body": True})

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._service.config.write_seconds):
                await send(message)
        except TimeoutError:
            raise ClientDisconnect from None  # it does not read
