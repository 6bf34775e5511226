"""Routes of carts: pages that are sent ahead, and questions or panels about an ECG."""

from __future__ import annotations

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pulse_edge.answer import Answer
from pulse_edge.look import Look
from pulse_edge.page.source import ImageSource
from pulse_edge.panels.result import Result
from pulse_edge.serve.asking import ask_about, with_deadline
from pulse_edge.serve.bodies import read_body
from pulse_edge.serve.exchange import Exchange, begin, cancelled_by_leaving, check_present
from pulse_edge.serve.facts import facts_of
from pulse_edge.serve.forms import Form, read_form
from pulse_edge.serve.pages import KeptPage
from pulse_edge.serve.panel import ask_panel, choose_panel
from pulse_edge.serve.parameters import PRIORITIES
from pulse_edge.serve.preview import picture_of
from pulse_edge.serve.refusals import Refusal
from pulse_edge.serve.service import Service, service_of
from pulse_edge.serve.tickets import admitted
from pulse_edge.serve.uploads import image_of_bytes

PAGE_FIELDS = ("file", "page", "picture", "priority", "deadline_s", "best_effort")
ECG_FIELDS = (
    *("file", "page", "panel", "question", "deadline_s", "best_effort", "priority"),
    "max_tokens",
)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


async def send_page(request: Request) -> Response:
    """`POST /v1/pages`: a page that is looked at before anybody asks."""
    service = service_of(request)
    content_type = request.headers.get("content-type", "")
    async with admitted(request) as ticket:
        body = await read_body(request, service.config)
        exchange = begin(
            service.admission, ticket, lambda own: _look(service, own, body, content_type)
        )
    async with cancelled_by_leaving(request, ticket):
        page = await exchange.result()
    return JSONResponse(_page_record(service, page), 201)


async def show_page(request: Request) -> Response:
    """`GET /v1/pages/{id}`."""
    service = service_of(request)
    return JSONResponse(_page_record(service, service.pages.find(request.path_params["page"])))


async def show_page_image(request: Request) -> Response:
    """`GET /v1/pages/{id}/image`: a PNG of it, if its sender asked for one."""
    page = service_of(request).pages.find(request.path_params["page"])
    if page.picture is None:
        raise Refusal(
            "the page has no picture; send it as a form with picture=true",
            404, "picture_not_found", param="page",
        )  # fmt: skip
    return Response(page.picture, media_type="image/png")


async def drop_page(request: Request) -> Response:
    """`DELETE /v1/pages/{id}`: forget it, and stop looking at it."""
    name = request.path_params["page"]
    service_of(request).pages.drop(name)
    return JSONResponse({"id": name, "deleted": True})


async def read_ecg(request: Request) -> Response:
    """`POST /v1/ecg`: a page or a recording with a panel or a question."""
    service = service_of(request)
    content_type = request.headers.get("content-type", "")
    async with admitted(request) as ticket:
        body = await read_body(request, service.config)
        exchange = begin(
            service.admission, ticket, lambda own: _answer_form(service, own, body, content_type)
        )
    async with cancelled_by_leaving(request, ticket):
        result = await exchange.result()
    if isinstance(result, Answer):
        facts_of(request).answer = result
    return JSONResponse(result.to_dict())


def _look(service: Service, exchange: Exchange, body: bytes, content_type: str) -> KeptPage:
    if content_type.startswith("multipart/"):
        form = read_form(body, content_type, PAGE_FIELDS)
        image = image_of_bytes(form.files.get("file", b""), _number_in_file(form))
        options = _options(form)
        wants_picture = _truth_of(form.texts.get("picture", "false"), "picture")
    else:
        image = image_of_bytes(body)
        options = {}
        wants_picture = False
    check_present(exchange.ticket)
    page = service.pages.add(KeptPage(service.model.look(image, **options)))
    if wants_picture and page.picture is None:
        page.picture = picture_of(image, page.facts)
    return page


def _page_record(service: Service, page: KeptPage) -> dict[str, Any]:
    return {
        "id": page.look.sha256,
        "object": "page",
        "state": page.state,
        "predicted_s": page.look.predicted_s,
        "image": page.facts,
        "seconds_left": round(service.pages.seconds_left(page), 1),
    }


def _answer_form(
    service: Service, exchange: Exchange, body: bytes, content_type: str
) -> Answer | Result:
    form = read_form(body, content_type, ECG_FIELDS)
    del body
    image = _image_of(service, form)
    options = _options(form)
    question = form.texts.get("question")
    has_panel = "panel" in form.texts or "panel" in form.files
    if question is not None:
        if has_panel:
            raise _wrong_field("send a question or a panel, not both", "panel")
        return ask_about(service, exchange, image, question, options)
    if "max_new_tokens" in options:
        raise _wrong_field(
            "max_tokens goes with a question; a panel has its own limits", "max_tokens"
        )
    panel = choose_panel(service, form.texts.get("panel"), form.files.get("panel"))
    return ask_panel(service, exchange, image, panel, with_deadline(service, options))


def _image_of(service: Service, form: Form) -> ImageSource | Look:
    """The page of a form. Its field `page` is a number beside a file, and an id without one."""
    if "file" in form.files:
        return image_of_bytes(form.files["file"], _number_in_file(form))
    if "page" not in form.texts:
        raise _wrong_field("send either a file, or the id of a page that was sent ahead", "file")
    return service.pages.find(form.texts["page"]).look


def _number_in_file(form: Form) -> int | None:
    """Of the page in the form's file."""
    text = form.texts.get("page")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise _wrong_field("page must be a whole number from 1, of a page in the file", "page")
    return int(text)


def _options(form: Form) -> dict[str, Any]:
    """Keywords of the model's calls, as far as the form has them."""
    texts = form.texts
    options: dict[str, Any] = {}
    if "deadline_s" in texts:
        options["deadline_s"] = _deadline_of(texts["deadline_s"])
    if "best_effort" in texts:
        options["best_effort"] = _truth_of(texts["best_effort"], "best_effort")
    if "priority" in texts:
        if texts["priority"] not in PRIORITIES:
            raise _wrong_field(f"priority must be {' or '.join(PRIORITIES)}", "priority")
        options["priority"] = texts["priority"]
    if "max_tokens" in texts:
        if not texts["max_tokens"].isdecimal() or len(texts["max_tokens"]) > 9:
            raise _wrong_field("max_tokens must be a whole number from 1", "max_tokens")
        options["max_new_tokens"] = int(texts["max_tokens"])
    return options


def _truth_of(text: str, name: str) -> bool:
    if text not in _TRUTHS:
        raise _wrong_field(f"{name} must be true or false", name)
    return _TRUTHS[text]


def _deadline_of(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _wrong_field("deadline_s must be seconds over 0", "deadline_s")
    return seconds


def _wrong_field(message: str, param: str) -> Refusal:
    return Refusal(message, 400, "invalid_form", param=param)


ROUTES = (
    Route("/v1/pages", send_page, methods=["POST"]),
    Route("/v1/pages/{page}", show_page, methods=["GET"]),
    Route("/v1/pages/{page}/image", show_page_image, methods=["GET"]),
    Route("/v1/pages/{page}", drop_page, methods=["DELETE"]),
    Route("/v1/ecg", read_ecg, methods=["POST"]),
)
