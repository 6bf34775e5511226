"""Errors as statuses and OpenAI's bodies."""

from __future__ import annotations

import pytest

from pulse_edge.errors import (
    AuditError,
    ContextError,
    DeadlineError,
    EngineError,
    ImageError,
    ParameterError,
    PulseEdgeError,
    QueueFullError,
    QueueTimeoutError,
    RecordingError,
)
from pulse_edge.serve.refusals import Refusal, refusal_of


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DeadlineError("late", 5.0, 2.0), 422, "deadline"),
        (QueueFullError("full", 3.2), 429, "queue_full"),
        (QueueTimeoutError("slow"), 503, "queue_timeout"),
        (RecordingError("bad"), 400, "invalid_recording"),
        (ImageError("bad"), 400, "invalid_image"),
        (ContextError("long"), 400, "context_length_exceeded"),
        (ParameterError("wrong"), 400, "invalid_parameter"),
        (EngineError("broke"), 500, "failed"),
        (AuditError("disk full"), 500, "failed"),
        (PulseEdgeError("odd"), 500, "failed"),
        (ValueError("Jane Doe"), 500, "internal"),
        (MemoryError(), 500, "internal"),
    ],
)
def test_every_error_has_a_status(error: Exception, status: int, code: str) -> None:
    refusal = refusal_of(error)
    record = refusal.body["error"]
    assert (refusal.status, record["code"]) == (status, code)
    assert record.keys() >= {"message", "type", "code", "param"}
    assert (record["message"] == str(error)) == isinstance(error, PulseEdgeError)
    retried = status in (408, 409, 429) or status >= 500
    assert (refusal.headers.get("x-should-retry") == "false") or not retried


def test_a_deadline_says_the_prediction() -> None:
    record = refusal_of(DeadlineError("late", 5.0, 2.0)).body["error"]
    assert (record["predicted_s"], record["deadline_s"]) == (5.0, 2.0)


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (3.2, "4"), (30.0, "30")])
def test_when_to_come_back(seconds: float, header: str) -> None:
    assert refusal_of(QueueFullError("full", seconds)).headers["retry-after"] == header


def test_a_message_is_one_short_line() -> None:
    body = Refusal("a\nb\t c" + "x" * 9999).body
    assert body["error"]["message"].startswith("a b cx")
    assert len(body["error"]["message"]) == 500


def test_a_refusal_stays_itself() -> None:
    refusal = Refusal("no", 404, "gone", param="page", headers={"a": "b"}, details={"c": 1})
    assert refusal_of(refusal) is refusal
    assert refusal.body["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "code": "gone",
        "param": "page",
        "c": 1,
    }
