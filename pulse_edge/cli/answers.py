"""Answers on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cli.status import Status
from pulse_edge.cli.terminal import show, show_text
from pulse_edge.page.check import PageCheck, warnings_of

if TYPE_CHECKING:
    from pulse_edge.answer import Answer
    from pulse_edge.stream import Stream


def print_answer(stream: Stream, status: Status, as_it_comes: bool, brief: bool = False) -> None:
    """Print an answer and, below it, what produced it.

    Args:
        stream: the answer while it is generated.
        status: cleared before anything is printed.
        as_it_comes: print every piece of text at once, or all of it at the end.
        brief: print one short line below it, for a chat that has named the model and the notice.
    """
    for piece in stream:
        status.clear()
        if as_it_comes:
            show_text(piece, end="")
    status.clear()
    show_text("" if as_it_comes else stream.text)
    image = stream.answer.provenance["image"]
    for note in image["notes"] if image else ():
        show(f"note: {note}", err=True)
    show_warnings(stream.answer)
    late = stream.answer.deadline
    if late is not None and not late.met:
        problem = f"the deadline of {late.deadline_s:g} s passed"
        show(f"note: {problem}; not finished: {', '.join(late.skipped)}", err=True)
    if brief:
        show(f"[{_speed(stream.answer)}; research use only]", dim=True)
        return
    if stream.answer.checks:
        show(checks_line(stream.answer), dim=True)
    show(footer(stream.answer), dim=True)
    show(NOTICE, dim=True)


def show_warnings(answer: Answer) -> None:
    """Print what the checks of the page warn of, to stderr."""
    for check in warnings_of(answer.checks):
        show(f"warning: {check.check}: {check.message}", err=True)


def checks_line(answer: Answer) -> str:
    """How the checks of the page ended: numbers of those that are not ok; `--json` has them all."""
    sound = sum(check.status == "ok" for check in answer.checks)
    others = [_check_text(check) for check in answer.checks if check.status != "ok"]
    return "; ".join([f"page: {sound} of {len(answer.checks)} checks ok", *others])


def _check_text(check: PageCheck) -> str:
    value = "" if check.value is None else f" ({check.value:.3g} {check.unit})"
    return f"{check.check} {check.status}{value}"


def footer(answer: Answer) -> str:
    """The line under an answer: what produced it, and how fast."""
    provenance = answer.provenance
    engine = provenance["engine"]
    return (
        f"[{provenance['checkpoint']['name']} {provenance['precision']['name']}, "
        f"bundle {provenance['bundle'][:12]}, "
        f"{engine['engine']} {engine['engine_version']} on {engine['device']}; "
        f"{_speed(answer)}]"
    )


def _speed(answer: Answer) -> str:
    timings = answer.timings
    speed = f", {1 / timings.tpot:.0f} tokens/s" if timings.tpot else ""
    first = f"{timings.ttft:.2f} s to first token" if timings.ttft else "no token"
    return f"{first}{speed}; ended by {answer.finish_reason}"
