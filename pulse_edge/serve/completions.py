"""OpenAI's objects: completions, their chunks, models."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

from pulse_edge.answer import Answer, Usage
from pulse_edge.serve.refusals import Refusal

# OpenAI knows "stop", "length", "content_filter" and "tool_calls". What else ends an answer here
# leaves it shorter than it could be; `pulse_edge.finish_reason` has the exact word.
_FINISH = {"eos": "stop", "stop": "stop"}


def finish_reason(answer: Answer) -> str:
    """Why an answer ended, in OpenAI's words."""
    return _FINISH.get(answer.finish_reason, "length")


def usage_record(usage: Usage) -> dict[str, Any]:
    """Token counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.new_tokens,
        "total_tokens": usage.prompt_tokens + usage.new_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def own_record(answer: Answer, warnings: Sequence[str]) -> dict[str, Any]:
    """What OpenAI's objects have no field for: the key `pulse_edge`."""
    record = answer.to_dict()
    for name in ("text", "token_ids", "logprobs"):
        record.pop(name, None)
    return record | {"warnings": list(warnings)}


def logprobs_record(logprobs: Iterable[Any]) -> dict[str, Any]:
    """Log-probabilities of tokens."""
    return {"content": [_token_record(token) for token in logprobs], "refusal": None}


def _token_record(token: Any) -> dict[str, Any]:
    return _alternative(token) | {"top_logprobs": [_alternative(other) for other in token.top]}


def _alternative(token: Any) -> dict[str, Any]:
    raw = token.text if isinstance(token.text, bytes) else str(token.text).encode()
    return {
        "token": raw.decode("utf-8", "replace"),
        "logprob": token.logprob,
        "bytes": list(raw),
    }


class CompletionForm:
    """Writes the objects of one completion.

    Args:
        name: of the completion.
        model: what clients call the model.
        fingerprint: of the bundle.
        warnings: what was ignored.
        logprobs: whether they were asked for.
    """

    def __init__(
        self, name: str, model: str, fingerprint: str, warnings: Sequence[str], logprobs: bool
    ) -> None:
        self._warnings = warnings
        self._logprobs = logprobs
        self._head: dict[str, Any] = {
            "id": name,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }
        mark = secrets.token_hex(8)  # stands nowhere else
        whole = event(self._chunk({"content": mark}))
        self._before, _, self._after = whole.partition(f'"{mark}"'.encode())

    def whole(self, answer: Answer) -> dict[str, Any]:
        """A completion."""
        tokens = getattr(answer, "logprobs", None)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": logprobs_record(tokens or ()) if self._logprobs else None,
            "finish_reason": finish_reason(answer),
        }
        return self._head | {
            "choices": [choice],
            "usage": usage_record(answer.usage),
            "pulse_edge": own_record(answer, self._warnings),
        }

    def first_chunk(self) -> dict[str, Any]:
        """The chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def text_event(self, text: str, logprobs: Sequence[Any]) -> bytes:
        """A piece of the answer, as an event. All but its text is written once."""
        if logprobs:
            return event(self._chunk({"content": text}, logprobs))
        return self._before + json.dumps(text).encode() + self._after

    def last_chunk(self, answer: Answer, told: int) -> dict[str, Any]:
        """The chunk that says why the answer ended, and what produced it.

        Args:
            answer: the whole answer.
            told: tokens whose log-probabilities went out with earlier chunks.
        """
        rest = (getattr(answer, "logprobs", None) or ())[told:]
        chunk = self._chunk({}, rest)
        chunk["choices"][0]["finish_reason"] = finish_reason(answer)
        return chunk | {"pulse_edge": own_record(answer, self._warnings)}

    def usage_chunk(self, answer: Answer) -> dict[str, Any]:
        """The chunk of token counts."""
        chunk = self._head | {"object": "chat.completion.chunk", "choices": []}
        return chunk | {"usage": usage_record(answer.usage)}

    def _chunk(self, delta: dict[str, Any], logprobs: Sequence[Any] = ()) -> dict[str, Any]:
        known = logprobs_record(logprobs) if self._logprobs and logprobs else None
        choice = {"index": 0, "delta": delta, "logprobs": known, "finish_reason": None}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]}


def model_record(name: str, created: int, notice: str) -> dict[str, Any]:
    """A model."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "pulse-edge",
        "notice": notice,
    }


def event(record: dict[str, Any]) -> bytes:
    """A record as a server-sent event."""
    return b"data: " + json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def error_event(refusal: Refusal) -> bytes:
    """A refusal of a stream that has begun."""
    return event(refusal.body)
