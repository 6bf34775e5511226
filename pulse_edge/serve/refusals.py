"""What a request is refused with: a status, and OpenAI's error body."""

from __future__ import annotations

import math
from typing import Any

from pulse_edge.errors import (
    ContextError,
    DeadlineError,
    ImageError,
    ParameterError,
    PulseEdgeError,
    QueueFullError,
    QueueTimeoutError,
    RecordingError,
)

# OpenAI's clients repeat 408, 409, 429 and 5xx by themselves, unless this header forbids it. An
# answer takes seconds to minutes, so a repetition would make a full queue fuller.
NO_RETRY = {"x-should-retry": "false"}
RETRY = {"x-should-retry": "true"}
LONGEST = 500  # characters of a message

INVALID = "invalid_request_error"
# Error -> status, type, code. The first row that fits counts.
_ROWS: tuple[tuple[type[PulseEdgeError], int, str, str], ...] = (
    (DeadlineError, 422, "deadline_error", "deadline"),
    (QueueFullError, 429, "queue_error", "queue_full"),
    (QueueTimeoutError, 503, "queue_error", "queue_timeout"),
    (RecordingError, 400, INVALID, "invalid_recording"),
    (ImageError, 400, INVALID, "invalid_image"),
    (ContextError, 400, INVALID, "context_length_exceeded"),
    (ParameterError, 400, INVALID, "invalid_parameter"),
    (PulseEdgeError, 500, "server_error", "failed"),
)


class Refusal(PulseEdgeError):
    """A request that the server refuses.

    Args:
        message: one line: the value, what is legal, the next step.
        status: of HTTP.
        code: a word for programs.
        param: the field that is wrong.
        kind: OpenAI's `type`.
        headers: of the response.
        details: more fields of the error's body.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        code: str = "invalid_request",
        *,
        param: str | None = None,
        kind: str = INVALID,
        headers: dict[str, str] | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = headers or {}
        self.details = details or {}

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error body."""
        text = " ".join(str(self).split())[:LONGEST]
        error = {"message": text, "type": self.kind, "code": self.code, "param": self.param}
        return {"error": error | self.details}


def refusal_of(error: BaseException) -> Refusal:
    """Any error as a refusal. One that is not ours says nothing of what went wrong."""
    if isinstance(error, Refusal):
        return error
    if not isinstance(error, PulseEdgeError):
        return Refusal(
            "the server failed; its log names the place", 500, "internal", kind="server_error",
            headers=NO_RETRY,
        )  # fmt: skip
    status, kind, code = next(
        (status, kind, code) for family, status, kind, code in _ROWS if isinstance(error, family)
    )
    headers = dict(NO_RETRY) if status in (422, 429, 500, 503) else {}
    details: dict[str, Any] = {}
    if isinstance(error, QueueFullError):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, DeadlineError):
        details = {"predicted_s": error.predicted_s, "deadline_s": error.deadline_s}
    return Refusal(str(error), status, code, kind=kind, headers=headers, details=details)
