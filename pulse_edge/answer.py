"""What an answer carries besides its text: usage, timings, provenance. docs/answer.schema.json is its JSON schema."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.decode.result import FinishReason


@dataclass(frozen=True)
class Usage:
    """Token counts. `cached_tokens` of the prompt were still in the KV cache and were not computed again. With
    `SamplingParams.speculate`, `drafted_tokens` were run ahead of sampling, of which `accepted_tokens` proved right and
    took no step of their own."""

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    new_tokens: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds. Stages that were not needed (image already known) are 0.

    ttft: from the request's turn to its first token. tpot: (last token - first token) / (tokens - 1), None below
    two tokens. decode_steps: engine time of each step after the first token (with `speculate`, one may give several).
    """

    decode_image: float
    preprocess: float
    vision: float
    prefill: float
    decode_steps: tuple[float, ...]
    sample: float
    detokenise: float
    ttft: float | None
    tpot: float | None
    total: float


@dataclass(frozen=True)
class Answer:
    """A finished (or cancelled) answer. `token_ids` are the generated ones, without the end token."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    provenance: dict[str, Any]
    notice: str = NOTICE

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)
