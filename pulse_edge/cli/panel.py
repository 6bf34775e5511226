"""`pulse-edge panel`: fixed questions about one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from pulse_edge.cli.options import known_option, model_options
from pulse_edge.cli.sources import source_options
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_json, show_text
from pulse_edge.known import parse_known

if TYPE_CHECKING:
    from pulse_edge.model import Model
    from pulse_edge.page.source import ImageSource
    from pulse_edge.panels.result import QuestionResult, Result

CART = "cart"
_WHY = {"deadline": "no time was left", "queue_full": "too many other requests wait"}
SHOWN_STATUSES = ("stated", "negated", "uncertain", "conflict")


@click.command("panel")
@click.argument("image", type=click.Path())
@click.option(
    "--panel",
    "panel",
    metavar="NAME|FILE",
    help="A panel of the package, or a file [default: the one that suits the model].",
)
@click.option("--deadline", type=float, help="Seconds for all of it; the rest is skipped.")
@click.option("--best-effort", is_flag=True, help="Begin even if the deadline will be missed.")
@click.option(
    "--given",
    multiple=True,
    metavar="NAME=VALUE",
    help="A measurement of yours for the result, as 'heart rate=72'; repeatable.",
)
@known_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the whole result as JSON (pulse_edge/assets/schemas/result.schema.json).",
)
@source_options
@model_options
def panel_command(
    image: str,
    panel: str | None,
    deadline: float | None,
    best_effort: bool,
    given: tuple[str, ...],
    known: tuple[str, ...],
    as_json: bool,
    source_of: Callable[[str], ImageSource],
    open_model: Callable[[], Model],
    status: Status,
) -> None:
    """Ask a panel of questions about the ECG page or recording IMAGE.

    The result has an answer or none for each question, what the report states and negates, and the
    measurements in it. It is preliminary: nobody has confirmed it.
    """
    from pulse_edge.panels.measurements import parse_assignments
    from pulse_edge.panels.panel_file import load_panel

    measurements = parse_assignments(given)
    values = parse_known(known)
    chosen = None if panel is None else load_panel(panel)  # before the model takes seconds
    result = open_model().panel(
        source_of(image),
        chosen,
        deadline_s=deadline,
        best_effort=best_effort,
        given=measurements,
        known=values,
    )
    status.clear()
    if as_json:
        show_json(result.to_dict(), indent=2)
        return
    for check in result.checks:
        if check.status is None:
            show(f"note: {check.message}", err=True)
        elif check.status == "warn":
            show(f"warning: {check.check}: {check.message}", err=True)
    for line in _result_lines(result):
        show_text(line)
    show(_footer(result), dim=True)
    show(result.notice, dim=True)


def _result_lines(result: Result) -> Iterator[str]:
    """The result as text."""
    names = [*(each.id for each in result.questions), *result.timing.skipped]
    width = max(map(len, names), default=0)
    for question in result.questions:
        yield f"{question.id:<{width}}  {_answer(question)}"
    for skipped in result.timing.skipped:
        yield f"{skipped:<{width}}  skipped: {_WHY[result.timing.skip_reasons[skipped]]}"
    for status in SHOWN_STATUSES:
        findings = dict.fromkeys(
            each.finding
            for each in result.statements
            if each.status == status and each.source != CART
        )
        if findings:
            yield f"{status}: {', '.join(findings)}"
    for text in result.cart_statements:
        yield f"cart states: {text}"
    for each in result.measurements:
        value = "conflicting values" if each.value is None else f"{each.value:g} {each.unit}"
        origin = f"{each.source}, {each.question}" if each.question else each.source
        yield f"{each.name}: {value} ({origin})"


def _answer(question: QuestionResult) -> str:
    if not question.options:
        return question.text
    if question.answer is None:
        why = "no ECG, says the model" if question.refused else "no option"
        return f"- ({why}: {question.text!r})"
    margin = "" if question.margin is None else f" (margin {question.margin:.1f})"
    return f"{question.answer}{margin}"


def _footer(result: Result) -> str:
    """What produced the result, and how fast."""
    provenance, timing = result.provenance, result.timing
    deadline = "" if timing.deadline_s is None else f" of {timing.deadline_s:g} s"
    return (
        f"[panel {result.panel} {result.panel_sha256[:12]}, "
        f"{provenance['checkpoint']['name']} {provenance['precision']['name']}, "
        f"bundle {provenance['bundle'][:12]}; {timing.total_s:.2f} s{deadline}; preliminary]"
    )
