"""`pulse-edge ask --layouts`: one question about one recording, drawn in several layouts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.answers import footer, show_warnings
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_json, show_text
from pulse_edge.errors import DeadlineError, ImageError, ParameterError
from pulse_edge.guarded import open_regular, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pulse_edge.answer import Answer
    from pulse_edge.ecg.recording import Recording
    from pulse_edge.evaluate.layouts import LayoutAgreement
    from pulse_edge.model import Model
    from pulse_edge.page.source import ImageSource


def recording_for_layouts(source: ImageSource) -> Recording:
    """The recording that is drawn in each layout.

    Args:
        source: as `cli.sources` returns it.

    Raises:
        ParameterError: it is an image, which has the layout that it has.
        RecordingError: it cannot be read.
        ImageError: there is no such file.
    """
    from pulse_edge.ecg.readers.registry import HEAD, is_recording, read_recording
    from pulse_edge.ecg.recording import Recording
    from pulse_edge.page.pdf import is_pdf

    if isinstance(source, Recording):
        return source
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        try:
            with open_regular(path) as file:
                head = file.read(HEAD)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ImageError(f"{path}: cannot be read ({reason(error)})") from None
        if is_recording(path, head) and not is_pdf(head):
            return read_recording(path)
        what = f"{path}: an image"
    else:
        what = "a page of a document"
    raise ParameterError(
        f"{what} has one layout; --layouts needs a recording, which it draws in each: ask without "
        "--layouts"
    )


def ask_in_layouts(
    open_model: Callable[[], Model],
    recording: Recording,
    question: str,
    layouts: Sequence[str],
    status: Status,
    as_json: bool,
    **options: Any,
) -> Mapping[str, Answer]:
    """Ask, and print the answers and whether they agree.

    Args:
        open_model: loads the model.
        recording: what is drawn.
        question: the same each time.
        layouts: in their order.
        status: cleared before anything is printed.
        as_json: print docs/layouts.schema.json.
        options: keywords of `Model.ask`.

    Returns:
        The answers by layout.
    """
    from pulse_edge.evaluate.layouts import ask_layouts

    result = ask_layouts(open_model(), recording, question, layouts, **options)
    status.clear()
    if as_json:
        show_json(result.to_dict(), indent=2)
    else:
        _print_agreement(result)
    late = any(answer.finish_reason == "deadline" for answer in result.answers.values())
    if result.skipped or late:
        click.get_current_context().exit(DeadlineError.exit_code)
    return result.answers


def _print_agreement(result: LayoutAgreement) -> None:
    from pulse_edge.evaluate.layouts import LIMITS

    notes: dict[str, None] = {}
    for layout, answer in result.answers.items():
        show_text(f"{layout}: {answer.text}")
        notes |= dict.fromkeys(f"{layout}: {note}" for note in answer.provenance["image"]["notes"])
    for layout in result.skipped:
        show_text(f"{layout}: skipped: no time was left")
    for note in notes:
        show(f"note: {note}", err=True)
    for answer in result.answers.values():
        show_warnings(answer)
    if result.unanimous is None:
        show("agreement: unknown, fewer than two answers were finished")
    else:
        show(f"agreement: {result.equal_pairs} of {result.pairs} pairs of layouts")
    for each in result.differences:
        values = ", ".join(
            f"{layout} {'no value' if value is None else value}"
            for layout, value in each.values.items()
        )
        show_text(f"  {each.name}: {values}")
    show(LIMITS, dim=True)
    show(footer(next(iter(result.answers.values()))), dim=True)
    show(NOTICE, dim=True)
