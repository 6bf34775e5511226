"""`pulse-edge ask`: one question about one page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from pulse_edge.assets import REPORT_QUESTION
from pulse_edge.cli.answers import print_answer
from pulse_edge.cli.layouts import ask_in_layouts, recording_for_layouts
from pulse_edge.cli.options import (
    TimeOptions,
    generation_options,
    known_option,
    model_options,
    time_options,
)
from pulse_edge.cli.sources import source_options
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show_json
from pulse_edge.ecg.layout import parse_layouts
from pulse_edge.errors import DeadlineError, PageCheckError
from pulse_edge.known import parse_known
from pulse_edge.page.check import warnings_of
from pulse_edge.params import GenerationParams

if TYPE_CHECKING:
    from pulse_edge.answer import Answer
    from pulse_edge.model import Model
    from pulse_edge.page.source import ImageSource


@click.command("ask")
@click.argument("image", type=click.Path())
@click.option("-q", "--question", default=REPORT_QUESTION, show_default=True)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the whole answer as JSON (pulse_edge/assets/schemas/answer.schema.json).",
)
@click.option(
    "--stream/--no-stream",
    default=True,
    show_default=True,
    help="Print text while it is generated.",
)
@click.option(
    "--layouts",
    metavar="LAYOUT,...",
    help="Ask about a recording in each of these layouts, and say whether the answers agree.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with code 15 if a check of the page warns. The answer is printed all the same.",
)
@known_option
@source_options
@model_options
@time_options
@generation_options
def ask_command(
    image: str,
    question: str,
    as_json: bool,
    stream: bool,
    layouts: str | None,
    strict: bool,
    known: tuple[str, ...],
    source_of: Callable[[str], ImageSource],
    open_model: Callable[[], Model],
    status: Status,
    time: TimeOptions,
    params: GenerationParams,
) -> None:
    """Answer a QUESTION about the ECG page IMAGE (PNG, JPEG, TIFF, BMP, WebP, PDF).

    IMAGE may also be a 12-lead recording (DICOM, MUSE, aECG, SCP-ECG, Sierra, WFDB, EDF, CSV),
    which is drawn first, as `pulse-edge draw` does.
    """
    options = {**time.terms, **dataclasses.asdict(params), "known": parse_known(known)}
    source = source_of(image)
    if layouts is not None:
        names = parse_layouts(layouts)
        recording = recording_for_layouts(source)
        answers = ask_in_layouts(open_model, recording, question, names, status, as_json, **options)
        refuse_warnings(answers.values(), strict)
        return
    pieces = open_model().stream(source, question, **options)
    if as_json:
        show_json(pieces.answer.to_dict(), indent=2)
    else:
        print_answer(pieces, status, stream)
    late = pieces.answer.deadline
    if late is not None and not late.met:
        click.get_current_context().exit(DeadlineError.exit_code)
    refuse_warnings([pieces.answer], strict)


def refuse_warnings(answers: Iterable[Answer], strict: bool) -> None:
    """With `--strict`, end with an error if a check of a page warns.

    Args:
        answers: that were printed.
        strict: whether the option was given.

    Raises:
        PageCheckError: a check warns.
    """
    names = {check.check for answer in answers for check in warnings_of(answer.checks)}
    if strict and names:
        raise PageCheckError(
            f"the page's checks warn: {', '.join(sorted(names))}; give a better picture, or ask "
            "without --strict"
        )
