"""`pulse-edge ask`: one question about one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pulse_edge.assets import REPORT_QUESTION
from pulse_edge.cli.answers import print_answer
from pulse_edge.cli.options import (
    TimeOptions,
    generation_options,
    model_options,
    time_options,
)
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show_json
from pulse_edge.errors import DeadlineError
from pulse_edge.params import GenerationParams

if TYPE_CHECKING:
    from pulse_edge.model import Model


@click.command("ask")
@click.argument("image", type=click.Path())
@click.option("-q", "--question", default=REPORT_QUESTION, show_default=True)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the whole answer as JSON (docs/answer.schema.json).",
)
@click.option(
    "--stream/--no-stream",
    default=True,
    show_default=True,
    help="Print text while it is generated.",
)
@model_options
@time_options
@generation_options
def ask_command(
    image: str,
    question: str,
    as_json: bool,
    stream: bool,
    open_model: Callable[[], Model],
    status: Status,
    time: TimeOptions,
    params: GenerationParams,
) -> None:
    """Answer a QUESTION about the ECG page IMAGE (PNG, JPEG, TIFF, BMP, WebP).

    IMAGE may also be a 12-lead recording (DICOM), which is drawn first, as `pulse-edge draw` does.
    """
    model = open_model()
    pieces = model.stream(image, question, **time.terms, **dataclasses.asdict(params))
    if as_json:
        show_json(pieces.answer.to_dict(), indent=2)
    else:
        print_answer(pieces, status, stream)
    late = pieces.answer.deadline
    if late is not None and not late.met:
        click.get_current_context().exit(DeadlineError.exit_code)
