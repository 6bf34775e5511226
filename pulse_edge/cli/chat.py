"""`pulse-edge chat`: turns about one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.answers import print_answer
from pulse_edge.cli.options import generation_options, model_options
from pulse_edge.cli.status import Status
from pulse_edge.params import GenerationParams

if TYPE_CHECKING:
    from pulse_edge.model import Model


@click.command("chat")
@click.argument("image", type=click.Path())
@model_options
@generation_options
def chat_command(
    image: str, open_model: Callable[[], Model], status: Status, params: GenerationParams
) -> None:
    """Talk about the ECG page IMAGE. Ctrl-C stops an answer, Ctrl-D ends the chat."""
    conversation = open_model().chat(image)
    click.echo(NOTICE, err=True)
    while True:
        status.clear()
        try:
            question = click.prompt(">", prompt_suffix=" ").strip()
        except click.Abort:
            click.echo()
            return
        stream = conversation.stream(question, **dataclasses.asdict(params))
        try:
            print_answer(stream, status, as_it_comes=True)
        except KeyboardInterrupt:
            stream.close()
            click.echo(" [stopped]")
