"""A conversation put to the model, in a request's thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pulse_edge.answer import Answer
from pulse_edge.look import Look
from pulse_edge.page.source import ImageSource
from pulse_edge.serve.exchange import Exchange, check_present
from pulse_edge.serve.messages import Conversation
from pulse_edge.serve.service import Service
from pulse_edge.stream import Stream


@dataclass(frozen=True)
class Piece:
    """Text of an answer, as soon as it is certain.

    Attributes:
        text: of the answer.
        logprobs: of the tokens that were sampled since the piece before, if they were asked for.
    """

    text: str
    logprobs: tuple[Any, ...] = ()


def open_stream(service: Service, asked: Conversation, options: Mapping[str, Any]) -> Stream:
    """The model's stream for a conversation. Nothing runs before it is read.

    Args:
        service: that answers.
        asked: the conversation.
        options: keywords of `Model.stream`.

    Raises:
        PulseEdgeError: as `Model.stream` does.
    """
    keywords = with_deadline(service, options)
    if not asked.turns:
        return service.model.stream(asked.image, asked.question, **keywords)
    return service.model.chat(asked.image, asked.turns).stream(asked.question, **keywords)


def with_deadline(service: Service, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a request, with the server's deadline if it has none of its own."""
    if service.config.deadline_s is None or "deadline_s" in options:
        return dict(options)
    return {**options, "deadline_s": service.config.deadline_s}


def answer_of(stream: Stream, exchange: Exchange, pieces: bool) -> Answer:
    """Read a stream to its end. The client's leaving closes it.

    Args:
        stream: that nobody has read.
        exchange: gets a `Piece` for each piece of text.
        pieces: whether it wants them.

    Raises:
        PulseEdgeError: as `Stream.answer` does.
        ClientDisconnect: the request was cancelled before it began.
    """
    check_present(exchange.ticket)
    exchange.ticket.on_cancel(stream.close)
    if pieces:
        told = 0
        for text in stream:
            logprobs = tuple(getattr(stream.delivery.out, "logprobs", ())[told:])
            told += len(logprobs)
            exchange.tell(Piece(text, logprobs))
    return stream.answer


def ask_about(
    service: Service,
    exchange: Exchange,
    image: ImageSource | Look | None,
    question: str,
    options: Mapping[str, Any],
) -> Answer:
    """One question about one page.

    Args:
        service: that answers.
        exchange: of the request.
        image: as `Model.ask` takes it.
        question: not empty.
        options: keywords of `Model.ask`.

    Raises:
        PulseEdgeError: as `Model.ask` does.
    """
    stream = open_stream(service, Conversation(image, (), question), options)
    return answer_of(stream, exchange, pieces=False)
