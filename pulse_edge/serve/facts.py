"""What is known of a request once it is over: figures and words of ours, for logs and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from pulse_edge.answer import Answer

KEY = "pulse_edge.facts"  # in the scope


@dataclass
class Facts:
    """Figures of a request. Nothing here was sent by a client.

    Attributes:
        id: of the ticket; empty before there was one.
        code: of the refusal; empty without one.
        error: the type and place of a failure of ours; empty without one.
        answer: what was answered.
    """

    id: str = ""
    code: str = ""
    error: str = ""
    answer: Answer | None = None

    def record(self) -> dict[str, Any]:
        """What a log may say, without fields that are empty."""
        fields: dict[str, Any] = {"id": self.id, "code": self.code, "error": self.error}
        answer = self.answer
        if answer is not None:
            fields |= {
                "finish": answer.finish_reason,
                "prompt_tokens": answer.usage.prompt_tokens,
                "cached_tokens": answer.usage.cached_tokens,
                "new_tokens": answer.usage.new_tokens,
                "ttft": None if answer.timings.ttft is None else round(answer.timings.ttft, 4),
            }
        return {name: value for name, value in fields.items() if value not in ("", None)}


def facts_of(request: Request) -> Facts:
    """The facts of a request, which the gate has put into its scope."""
    facts: Any = request.scope[KEY]
    assert isinstance(facts, Facts)
    return facts
