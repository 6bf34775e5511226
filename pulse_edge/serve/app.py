"""The server as an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pulse_edge.model import Model
from pulse_edge.serve import browser, cart, health, openai, tickets
from pulse_edge.serve.admission import start_thread
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.facts import facts_of
from pulse_edge.serve.gate import Gate
from pulse_edge.serve.keys import read_keys
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.service import Service
from pulse_edge.serve.stages import Stages

ROUTES = (
    *openai.ROUTES,
    *cart.ROUTES,
    *tickets.ROUTES,
    *health.ROUTES,
    *browser.ROUTES,
)
EXPIRY_SECONDS = 10.0  # between two looks for pages that are too old


def create_app(
    model: Model, config: ServeConfig | None = None, stages: Stages | None = None
) -> Starlette:
    """An ASGI app that serves a model.

    Args:
        model: a loaded one. With `load(queue_limit=config.queue)` it refuses what the app would
            refuse, with a better estimate of when to come back.
        config: settings; host and port are those that somebody else listens on.
        stages: what the model was loaded with as `progress`, for comments in streams.

    Returns:
        The app. Its `state.service` has what the routes share.

    Raises:
        ParameterError: the file of keys is wrong.
    """
    config = config or ServeConfig()
    service = Service(model, config, stages)
    keys = read_keys(config.key_path)
    paths = {route.endpoint: route.path for route in ROUTES}
    app = Starlette(
        routes=ROUTES,
        middleware=[Middleware(Gate, service=service, keys=keys, paths=paths)],
        exception_handlers={HTTPException: _no_route},
        lifespan=partial(_while_served, service),
    )
    app.state.service = service
    return app


@asynccontextmanager
async def _while_served(service: Service, _app: Starlette) -> AsyncIterator[None]:
    """From the self-test to the end of every request."""
    start_thread(partial(service.readiness.run, service.model), "self-test")
    expiry = asyncio.create_task(_expire_pages(service))
    try:
        yield
    finally:
        expiry.cancel()
        with suppress(asyncio.CancelledError):
            await expiry
        service.admission.close()
        service.pages.clear()


async def _expire_pages(service: Service) -> None:
    while True:
        await asyncio.sleep(EXPIRY_SECONDS)
        service.pages.expire()


async def _no_route(request: Request, error: Exception) -> Response:
    """Another path or method than there is. Says nothing of what was asked for."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = Refusal("another method is needed here", 405, "method_not_allowed")
    else:
        refusal = Refusal("there is no such route", error.status_code, "not_found")
    facts_of(request).code = refusal.code
    headers = dict(error.headers or {}) | refusal.headers
    return JSONResponse(refusal.body, refusal.status, headers)
