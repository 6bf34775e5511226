"""Whether an audit log is whole: every kind of tampering, and what only an anchor shows."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pulse_edge.audit.check import check_logs
from pulse_edge.audit.log import AuditLog
from pulse_edge.audit.record import answer_hash, audit_line
from pulse_edge.errors import AuditError, ParameterError

from support.answers import answer

pytest.importorskip("fcntl", reason="an audit log needs flock")

Lines = list[bytes]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def heads(path: Path) -> list[str]:
    """The heads of a log of six answers."""
    log = AuditLog(path)
    return [log.append(answer(number)) for number in range(6)]


def test_a_whole_log(path: Path, heads: list[str]) -> None:
    summary = check_logs([path], anchors=heads)
    assert summary.head == heads[-1]
    assert (summary.answers, summary.cut_short, summary.continues) == (6, 0, None)
    assert summary.first <= summary.last


def swapped(lines: Lines, one: int, two: int) -> Lines:
    lines[one], lines[two] = lines[two], lines[one]
    return lines


def edited(line: bytes, **fields: object) -> bytes:
    """A line with other fields and a hash that fits them."""
    record = json.loads(line) | fields
    del record["hash"]
    return audit_line(record)


TAMPERING: dict[str, Callable[[Lines], Lines]] = {
    "first removed": lambda lines: lines[1:],
    "second removed": lambda lines: lines[:1] + lines[2:],
    "middle removed": lambda lines: lines[:3] + lines[4:],
    "two removed": lambda lines: lines[:2] + lines[4:],
    "all but the ends removed": lambda lines: [lines[0], lines[-1]],
    "neighbours swapped": lambda lines: swapped(lines, 3, 4),
    "last ones swapped": lambda lines: swapped(lines, 5, 6),
    "one repeated": lambda lines: lines[:4] + lines[3:],
    "last repeated": lambda lines: lines + lines[-1:],
    "all repeated": lambda lines: lines * 2,
    "one with a new hash": lambda lines: [
        *lines[:3],
        edited(lines[3], time="2020-01-01T00:00:00.000+00:00"),
        *lines[4:],
    ],
    "first with a new hash": lambda lines: [edited(lines[0], time="x"), *lines[1:]],
    "one inserted": lambda lines: [*lines[:3], edited(lines[3], machine="arm"), *lines[3:]],
    "a blank line": lambda lines: [*lines[:3], b"\n", *lines[3:]],
    "garbage": lambda lines: [*lines[:3], b"garbage\n", *lines[3:]],
    "garbage at the end": lambda lines: [*lines, b"garbage\n"],
    "a line overwritten": lambda lines: [*lines[:3], b"#" * 80 + b"\n", *lines[4:]],
    "a field more": lambda lines: [*lines[:6], edited(lines[6], note="fine")],
    "another event": lambda lines: [*lines[:6], edited(lines[6], event="question")],
    "a false crash": lambda lines: [
        *lines[:3],
        b"garbage\n",
        edited(
            audit_line({"previous": json.loads(lines[3])["hash"], "event": "resumed", "time": "x"}),
            cut_short="0" * 64,
        ),
        *lines[4:],
    ],
    "another spelling": lambda lines: [
        *lines[:3],
        json.dumps(json.loads(lines[3])).encode() + b"\n",
        *lines[4:],
    ],
    "carriage returns": lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
    "a nested bomb": lambda lines: [*lines[:3], b"[" * 50_000 + b"\n", *lines[3:]],
    "empty": lambda lines: [],
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_refused_by_file(path: Path, heads: list[str], kind: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(TAMPERING[kind](lines)))
    with pytest.raises(AuditError) as caught:
        check_logs([path])
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 10


def test_no_byte_can_be_changed(path: Path, heads: list[str]) -> None:
    """Also of the last line, which no line after it covers."""
    whole = path.read_bytes()
    for position in range(0, len(whole) - 1, 29):
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(AuditError):
            check_logs([path])


def test_the_line_is_named(path: Path, heads: list[str]) -> None:
    path.write_bytes(path.read_bytes().replace(b'"new_tokens":3', b'"new_tokens":4', 1))
    with pytest.raises(AuditError, match=r"audit\.jsonl, line 2: was altered"):
        check_logs([path])


# -- what only an anchor shows


@pytest.mark.parametrize("kept", [1, 2, 6])
def test_lines_removed_from_the_end_show_by_an_anchor(
    path: Path, heads: list[str], kept: int
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]))
    assert check_logs([path]).answers == kept - 1
    with pytest.raises(AuditError, match=f"no line has the hash {heads[-1]}, which was noted"):
        check_logs([path], anchors=[heads[-1]])


def test_a_log_made_anew_shows_by_an_anchor(path: Path, heads: list[str]) -> None:
    path.unlink()
    log = AuditLog(path)
    for number in range(6):
        log.append(answer(number))
    check_logs([path])
    with pytest.raises(AuditError, match="or the log was made anew"):
        check_logs([path], anchors=[heads[2]])


def test_an_older_anchor_holds_while_the_log_grows(path: Path, heads: list[str]) -> None:
    AuditLog(path).append(answer(7))
    check_logs([path], anchors=heads)


@pytest.mark.parametrize("text", ["", "abc", "0" * 63, "G" * 64, "A" * 64])
def test_an_anchor_that_is_no_hash(path: Path, heads: list[str], text: str) -> None:
    with pytest.raises(ParameterError, match="is no hash; expected 64 hex digits"):
        check_logs([path], anchors=[text])


# -- answers


def test_an_answer_that_was_kept_is_found(path: Path, heads: list[str]) -> None:
    printed = json.loads(json.dumps(answer(3).to_dict()))
    name = answer_hash(printed)
    assert check_logs([path], answers=[name]).answered.keys() == {name}


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record | {"text": "Atrial fibrillation."},
        lambda record: record | {"token_ids": [1]},
        lambda record: record | {"finish_reason": "length"},
        lambda record: record | {"timings": record["timings"] | {"total": 1.0}},
        lambda record: record | {"provenance": record["provenance"] | {"prompt": "?"}},
    ],
)
def test_an_answer_that_was_altered_is_not(
    path: Path, heads: list[str], edit: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    name = answer_hash(edit(answer(3).to_dict()))
    with pytest.raises(AuditError, match=f"has no answer with the hash {name}"):
        check_logs([path], answers=[name])


# -- files


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_what_is_no_file(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(AuditError, match="no such file"):
        check_logs([path])


def test_one_file_twice(path: Path, heads: list[str]) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    with pytest.raises(AuditError, match="does not continue the file before it"):
        check_logs([path, copy])
