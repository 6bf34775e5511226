"""Lines of an audit log: what they say, and the hashes that chain them.

A line says when an answer was given, by which bundle, with which numbers, and the hash of the whole
answer. It holds no text of a question or an answer, no path, no name, and no hash of a page alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulse_edge.answer import Answer

FORMAT = "pulse-edge audit log 1"
NOTHING = "0" * 64  # stands for the hash before the first line
LONGEST_LINE = 1 << 16  # bytes; ours take 1,100
# A file begins with `begun`. `resumed` follows what a crash has left of a line.
BEGUN, RESUMED, ANSWER = "begun", "resumed", "answer"
# Of `Engine.describe`: what names the engine, and no more than that.
ENGINE_FIELDS = ("engine", "engine_version", "device", "provider", "threads", "context")
_COMMON = {"previous", "event", "time", "hash"}
_FIELDS = {
    BEGUN: _COMMON | {"format"},
    RESUMED: _COMMON | {"cut_short"},
    ANSWER: _COMMON
    | {"bundle", "verified", "engine", "versions", "machine"}
    | {"parameters", "usage", "finish_reason", "answer"},
}


def answer_record(answer: Answer) -> dict[str, Any]:
    """What a line says of an answer."""
    whole = answer.to_dict()
    source = whole["provenance"]
    engine = source["engine"]
    return {
        "bundle": source["bundle"],
        "verified": source.get("verified"),
        "engine": {name: engine[name] for name in ENGINE_FIELDS if name in engine},
        "versions": source["versions"],
        "machine": source["machine"],
        "parameters": _numbers(source["parameters"]),
        "usage": whole["usage"],
        "finish_reason": answer.finish_reason,
        "answer": answer_hash(whole),
    }


def answer_hash(record: Mapping[str, Any]) -> str:
    """SHA-256 of an answer as canonical JSON.

    Nobody can find the answer by trying texts: the record holds a dozen times of a clock that
    counts nanoseconds.

    Args:
        record: `Answer.to_dict()`, or what `pulse-edge ask --json` printed, parsed.
    """
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def audit_line(record: Mapping[str, Any]) -> bytes:
    """A line with its end and, as its last field, the hash of the rest."""
    return _canonical({**record, "hash": hashlib.sha256(_canonical(record)).hexdigest()}) + b"\n"


def hash_of_line(line: bytes) -> str:
    """The hash that the next line names."""
    return str(json.loads(line)["hash"])


def hash_of_rest(rest: bytes) -> str:
    """SHA-256 of what a crash has left of a line, with or without the end that was added."""
    return hashlib.sha256(rest.removesuffix(b"\n")).hexdigest()


def parse_line(line: bytes) -> dict[str, Any] | None:
    """A line's record; None if it is not whole: cut short, altered, or of something else."""
    record = parse_object(line)
    if record is None or not line.endswith(b"\n"):
        return None
    event = record.get("event")
    fields = _FIELDS.get(event) if isinstance(event, str) else None
    if record.keys() != fields or not all(
        isinstance(record[name], str) for name in ("previous", "time", "hash")
    ):
        return None
    body = {name: value for name, value in record.items() if name != "hash"}
    whole = audit_line(body) == line and record.get("format", FORMAT) == FORMAT
    return record if whole else None


def parse_object(line: bytes) -> dict[str, Any] | None:
    """A JSON object; None if it is none, as no line is that a crash has cut short."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _canonical(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _numbers(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as they are; of texts and lists only their lengths."""
    return {
        name: value if value is None or isinstance(value, bool | int | float) else len(value)
        for name, value in parameters.items()
    }
