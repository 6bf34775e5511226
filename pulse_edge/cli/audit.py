"""`pulse-edge audit`: looks after audit logs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from pulse_edge.audit.check import LogSummary, check_logs
from pulse_edge.audit.record import NOTHING, answer_hash
from pulse_edge.cli.terminal import show, show_json
from pulse_edge.errors import AuditError

LARGEST_ANSWER = 1 << 24  # bytes; an answer takes 4,000


@click.group("audit")
def audit_command() -> None:
    """Look after audit logs."""


@audit_command.command("verify")
@click.argument("logs", nargs=-1, required=True)
@click.option(
    "--anchor",
    "anchors",
    metavar="HASH",
    multiple=True,
    help="A head that was noted earlier, which the log must have; repeatable.",
)
@click.option(
    "--answer",
    "answers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    multiple=True,
    help="An answer as 'ask --json' printed it, which the log must have; repeatable.",
)
@click.option("--json", "as_json", is_flag=True)
def verify_logs(
    logs: tuple[str, ...], anchors: tuple[str, ...], answers: tuple[Path, ...], as_json: bool
) -> None:
    """Check that nothing inside LOGS was altered. Name the files of one log from the oldest on.

    Prints the log's head. Note it elsewhere: only a log that still has the noted head has lost
    nothing at its end.
    """
    hashes = {path: _answer_in(path) for path in answers}
    summary = check_logs(logs, anchors, hashes.values())
    if as_json:
        show_json(dataclasses.asdict(summary))
        return
    _print_summary(summary, bool(anchors))
    for path, name in hashes.items():
        show(f"{path}: answered at {summary.answered[name]}")


def _print_summary(summary: LogSummary, anchored: bool) -> None:
    show(f"whole, answers: {summary.answers}, from {summary.first} to {summary.last}")
    if summary.cut_short:
        show(f"places where a crash has cut lines short: {summary.cut_short}")
    if summary.continues is not None:
        show(f"continues a file, not named here, whose head is {summary.continues}")
    if summary.head != NOTHING:
        show(f"head {summary.head}")
    if not anchored:
        show("without --anchor, lines missing at the end do not show")


def _answer_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_ANSWER + 1)
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        record = json.loads(raw) if len(raw) <= LARGEST_ANSWER else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or "provenance" not in record:
        raise AuditError(f"{path}: not an answer; expected what 'pulse-edge ask --json' printed")
    return answer_hash(record)
