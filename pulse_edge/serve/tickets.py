"""Tickets of requests, on the event loop: admitted, found, cancelled."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pulse_edge.serve.admission import Ticket
from pulse_edge.serve.facts import facts_of
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.service import service_of

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PREFIX = "chatcmpl-"


@asynccontextmanager
async def admitted(request: Request) -> AsyncIterator[Ticket]:
    """A place for a request until its work begins. What the block raises gives it back.

    Args:
        request: may name itself by the header X-Request-Id.

    Raises:
        QueueFullError: there is no place.
        Refusal: the name is none, or in use.
    """
    name = request.headers.get("x-request-id")
    if name is not None and not _NAME.fullmatch(name):
        raise Refusal(
            "X-Request-Id must be 1 to 64 letters, digits, dots, dashes and underscores",
            400, "invalid_request_id",
        )  # fmt: skip
    admission = service_of(request).admission
    ticket = admission.admit(name)
    facts_of(request).id = ticket.id
    try:
        yield ticket
    except BaseException:
        admission.release(ticket)
        raise


async def cancel_request(request: Request) -> Response:
    """`DELETE /v1/requests/{id}`: our id, a completion's, or the one in X-Request-Id."""
    name = request.path_params["request"]
    ticket = service_of(request).admission.find(name.removeprefix(_PREFIX))
    if ticket is None:
        raise Refusal("no such request is under way", 404, "request_not_found", param="id")
    ticket.cancel()
    return JSONResponse({"id": ticket.id, "cancelled": True})


ROUTES = (Route("/v1/requests/{request}", cancel_request, methods=["DELETE"]),)
