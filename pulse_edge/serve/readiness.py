"""Whether the model gives the token that its bundle says."""

from __future__ import annotations

from typing import Any

from pulse_edge.model import Model
from pulse_edge.serve.logs import log_event, place_of


class Readiness:
    """The outcome of the self-test, which runs once, when the server starts.

    Attributes:
        outcome: None before it has ended.
    """

    def __init__(self) -> None:
        self.outcome: dict[str, Any] | None = None

    def run(self, model: Model) -> None:
        """Generate a token and compare it with the bundle's, in the thread that calls."""
        try:
            test = model.self_test()
            self.outcome = {"passed": test.passed, "seconds": round(test.seconds, 3)}
        except Exception as error:
            self.outcome = {"passed": False, "seconds": None}
            log_event("self_test_failed", error=place_of(error))
        log_event("self_test", **self.outcome)
