"""`pulse-edge chat`: turns about one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.answers import print_answer
from pulse_edge.cli.options import generation_options, model_options
from pulse_edge.cli.questions import read_question
from pulse_edge.cli.signals import signals
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_error
from pulse_edge.errors import ContextError, ParameterError
from pulse_edge.params import GenerationParams

if TYPE_CHECKING:
    from pulse_edge.chat import Chat
    from pulse_edge.model import Model


@click.command("chat")
@click.argument("image", type=click.Path())
@model_options
@generation_options
def chat_command(
    image: str, open_model: Callable[[], Model], status: Status, params: GenerationParams
) -> None:
    """Talk about the ECG page IMAGE. Ctrl-C stops an answer, Ctrl-D ends the chat.

    Questions may be piped in, one a line.
    """
    conversation = open_model().chat(image)
    show(NOTICE, err=True)
    going_on = True
    while going_on:
        status.clear()
        try:
            going_on = _turn(conversation, status, params)
        except (ContextError, ParameterError) as error:  # of this question alone
            status.clear()
            show_error(f"error: {error}")


def _turn(conversation: Chat, status: Status, params: GenerationParams) -> bool:
    """One question and its answer. Returns whether there was a question."""
    question = read_question()
    if question is None:
        return False
    stream = conversation.stream(question, **dataclasses.asdict(params))
    try:
        print_answer(stream, status, as_it_comes=True)
    except KeyboardInterrupt:
        stream.close()
        show(" [stopped]")
        signals.forget()
    return True
