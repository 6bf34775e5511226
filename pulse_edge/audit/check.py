"""Whether an audit log is whole: every line is of its form and names the hash of the one before.

A line that was altered, inserted, removed or moved breaks the chain. Lines removed from the end do
not, nor does a log that somebody with the right to write it has made anew. A head that was noted
elsewhere, an anchor, shows both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_edge.audit.record import (
    ANSWER,
    BEGUN,
    LONGEST_LINE,
    NOTHING,
    RESUMED,
    hash_of_rest,
    parse_line,
    parse_object,
)
from pulse_edge.configuration import SEAL
from pulse_edge.errors import AuditError, ParameterError

LARGEST_REST = 4 * LONGEST_LINE  # bytes that crashes leave between two whole lines


@dataclass
class LogSummary:
    """What a whole log holds.

    Attributes:
        head: the hash of the last line. Who notes it elsewhere can show later that nothing up to
            here was removed.
        answers: number of answers.
        first: time of the first line, UTC.
        last: time of the last line, UTC.
        cut_short: places where a crash has cut lines short. The next line says so, unless it is the
            end of the log.
        continues: the head of an earlier file, which was not given; None if this is the beginning.
        answered: time of each answer that was looked for, by its hash.
    """

    head: str = NOTHING
    answers: int = 0
    first: str = ""
    last: str = ""
    cut_short: int = 0
    continues: str | None = None
    answered: dict[str, str] = field(default_factory=dict)


def check_logs(
    paths: Sequence[str | Path], anchors: Iterable[str] = (), answers: Iterable[str] = ()
) -> LogSummary:
    """Check files of one log, the oldest first.

    Args:
        paths: `audit.log.1`, `audit.log.2`, …, `audit.log`.
        anchors: heads that were noted earlier.
        answers: hashes of answers that the log must have.

    Raises:
        AuditError: the log was altered, or lacks an anchor or answer. It names file and line.
        ParameterError: an anchor is no hash.
    """
    missing = dict.fromkeys(anchors)
    for anchor in missing:
        if not SEAL.fullmatch(anchor):
            raise ParameterError(f"anchor {anchor!r:.80} is no hash; expected 64 hex digits")
    wanted = dict.fromkeys(answers)
    summary = LogSummary()
    for position, path in enumerate(map(Path, paths)):
        for record in _chain(path, summary, position):
            summary.head = record["hash"]
            missing.pop(summary.head, None)
            summary.first = summary.first or record["time"]
            summary.last = record["time"]
            if record["event"] == ANSWER:
                summary.answers += 1
                if record["answer"] in wanted:
                    summary.answered[record["answer"]] = record["time"]
    _raise_missing(paths, [*missing], [a for a in wanted if a not in summary.answered])
    return summary


def _raise_missing(paths: Sequence[str | Path], anchors: list[str], answers: list[str]) -> None:
    log = ", ".join(map(str, paths))
    if anchors:
        raise AuditError(
            f"{log}: no line has the hash {anchors[0]}, which was noted as the log's head: lines "
            "were removed, or the log was made anew"
        )
    if answers:
        raise AuditError(f"{log}: has no answer with the hash {answers[0]}")


def _chain(path: Path, summary: LogSummary, position: int) -> Iterator[dict[str, Any]]:
    """The records of a file, each compared with the one before. The last one is `summary.head`.

    Args:
        position: of the file among those that are checked.
    """
    rest = b""  # what a crash has left
    number = 0
    for number, line in enumerate(_lines(path), 1):
        where = f"{path}, line {number}"
        record = parse_line(line)
        if record is None:
            if parse_object(line) is not None or number == 1:
                raise AuditError(f"{where}: was altered")
            rest += line
            if len(rest) > LARGEST_REST:
                raise AuditError(f"{where}: was altered")
            continue
        _check_event(where, number, record, rest)
        if number == 1 and position == 0:
            summary.continues = None if record["previous"] == NOTHING else record["previous"]
        elif record["previous"] != summary.head:
            raise AuditError(_broken(path, number))
        summary.cut_short += bool(rest)
        rest = b""
        yield record
    if number == 0:
        raise AuditError(f"{path}: empty; an audit log has a first line")
    if rest.endswith(b"\n"):
        raise AuditError(f"{path}, line {number}: was altered")
    summary.cut_short += bool(rest)


def _check_event(where: str, number: int, record: dict[str, Any], rest: bytes) -> None:
    """Raise `AuditError` unless a line is where such a line may be."""
    event = record["event"]
    if (number == 1) != (event == BEGUN):
        raise AuditError(f"{where}: was moved; a file has its first line, and no other such line")
    if bool(rest) != (event == RESUMED):
        raise AuditError(f"{where}: the line before was altered or moved")
    if rest and record["cut_short"] != hash_of_rest(rest):
        raise AuditError(f"{where}: the line before was altered")


def _broken(path: Path, number: int) -> str:
    if number == 1:
        return f"{path}: does not continue the file before it; name the files from the oldest on"
    return f"{path}, line {number}: lines before it were removed, added or moved"


def _lines(path: Path) -> Iterator[bytes]:
    """Lines with their ends. Raises `AuditError`."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise AuditError(f"{path}: no such file, so no audit log")
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                yield line
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})") from None
