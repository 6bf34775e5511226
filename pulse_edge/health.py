"""Whether the engine still moves: a watchdog that looks when it is asked."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from pulse_edge.delivery import Delivery

LEAST_S = 10.0  # no call of an engine is called stuck before
TIMES_USUAL = 20  # a call that takes this many times as long as usual is called stuck
UNKNOWN_S = 600.0  # for a call of which nothing is known, such as the first page of a 7B model


@dataclass(frozen=True)
class Health:
    """How a model's engine does.

    Args:
        healthy: False if the engine seems stuck. A call that is stuck cannot be ended from within
            the process: restart it.
        reason: why it is not; None if it is.
        running_s: seconds since the running request last got on; None if none runs.
        queued: requests that wait.
    """

    healthy: bool
    reason: str | None
    running_s: float | None
    queued: int


@dataclass(frozen=True)
class SelfTest:
    """Whether a model gives the token that it gave when it was exported.

    Args:
        passed: it does, or no token was recorded.
        token: the likeliest first token of an answer to a question without a page.
        expected: the recorded one; None if the export recorded none.
        seconds: that the test took.
    """

    passed: bool
    token: int
    expected: int | None
    seconds: float


def examine(running: Delivery | None, queued: int) -> Health:
    """The health of an engine.

    Args:
        running: the request whose turn it is.
        queued: requests that wait.
    """
    if running is None:
        return Health(True, None, None, queued)
    out = running.out
    silent = running.silent_s
    allowed = max(LEAST_S, TIMES_USUAL * running.usual_s) if running.usual_s else UNKNOWN_S
    if out.last_token_at is not None:
        silent = out.clock() - out.last_token_at
        steps = out.step_seconds[:]
        usual = statistics.median(steps) if steps else running.usual_s
        allowed = max(LEAST_S, TIMES_USUAL * usual) if usual else UNKNOWN_S
    if silent <= allowed:
        return Health(True, None, silent, queued)
    problem = f"a call of the engine has taken {silent:.0f} s, and {allowed:.0f} is the most"
    return Health(False, f"{problem} that it may; restart the process", silent, queued)
