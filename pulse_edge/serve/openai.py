"""OpenAI's routes: models and chat completions."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pulse_edge.answer import Answer
from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.serve.admission import Ticket
from pulse_edge.serve.asking import answer_of, open_stream
from pulse_edge.serve.bodies import parse_json_body, read_body
from pulse_edge.serve.completions import CompletionForm, model_record
from pulse_edge.serve.exchange import End, Exchange, begin, cancelled_by_leaving
from pulse_edge.serve.facts import facts_of
from pulse_edge.serve.messages import read_messages
from pulse_edge.serve.parameters import ChatParameters, read_parameters
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.service import Service, service_of
from pulse_edge.serve.streaming import EventStream
from pulse_edge.serve.tickets import admitted


async def list_models(request: Request) -> Response:
    """`GET /v1/models`."""
    service = service_of(request)
    record = model_record(service.name, service.created, NOTICE)
    return JSONResponse({"object": "list", "data": [record]})


async def show_model(request: Request) -> Response:
    """`GET /v1/models/{id}`."""
    service = service_of(request)
    _check_model(service, request.path_params["model"])
    return JSONResponse(model_record(service.name, service.created, NOTICE))


async def complete_chat(request: Request) -> Response:
    """`POST /v1/chat/completions`."""
    service = service_of(request)
    async with admitted(request) as ticket:
        body = await read_body(request, service.config)
        exchange = begin(service.admission, ticket, lambda own: _complete(service, own, body))
    async with cancelled_by_leaving(request, ticket):
        plan = await _first_event(exchange)
        if not plan.stream:
            answer = await exchange.result()
            facts_of(request).answer = answer
            return JSONResponse(_completion_form(service, ticket, plan).whole(answer))
        heartbeat = plan.heartbeat_s or service.config.heartbeat_seconds
        form = _completion_form(service, ticket, plan)  # while the model works
        first = await _soon(exchange, heartbeat)
    return EventStream(
        service,
        exchange,
        form,
        plan.include_usage,
        heartbeat,
        first,
        facts_of(request),
    )


def _complete(service: Service, exchange: Exchange, body: bytes) -> Answer:
    """The whole work of a completion, in its thread."""
    record = parse_json_body(body)
    _check_model(service, record.get("model"))
    plan = read_parameters(record)
    config = service.config
    asked = read_messages(
        record.get("messages"), service.system, config.ignore_system, plan.warnings, plan.page
    )
    del record
    exchange.tell(plan)
    stream = open_stream(service, asked, plan.options)
    return answer_of(stream, exchange, plan.stream)


async def _first_event(exchange: Exchange) -> ChatParameters:
    """What the client asks for. Raises what is wrong with it."""
    event: Any = await exchange.next()
    if isinstance(event, End):
        assert event.error is not None
        raise event.error
    assert isinstance(event, ChatParameters)
    return event


async def _soon(exchange: Exchange, heartbeat: float) -> Any:
    """The first event within a heartbeat; None without one. Raises a refusal.

    The response begins after this, so that what is refused at once has its own status.
    """
    try:
        event = await exchange.next(heartbeat)
    except TimeoutError:
        return None
    if isinstance(event, End) and event.error is not None:
        raise event.error
    return event


def _completion_form(service: Service, ticket: Ticket, plan: ChatParameters) -> CompletionForm:
    return CompletionForm(
        f"chatcmpl-{ticket.id}",
        service.name,
        service.fingerprint,
        plan.warnings,
        "logprobs" in plan.options,
    )


def _check_model(service: Service, name: Any) -> None:
    if name is not None and name != service.name:
        raise Refusal(
            f"no such model; this server has {service.name}", 404, "model_not_found", param="model"
        )


ROUTES = (
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{model:path}", show_model, methods=["GET"]),
    Route("/v1/chat/completions", complete_chat, methods=["POST"]),
)
