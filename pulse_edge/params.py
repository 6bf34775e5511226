"""How to generate: parameters of a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pulse_edge.errors import ParameterError


@dataclass(frozen=True)
class SamplingParams:
    """How to generate. Greedy by default, like ECGBench's evaluation.

    temperature: 0 is greedy. top_k: 0 is off. top_p: 1 is off. repetition_penalty: 1 is off; it sees the tokens
    generated so far, not the prompt (as upstream, which generates from embeddings). seed: of the sampler;
    the same seed gives the same answer. stop: strings that end the answer and are not part of it. speculate: draft
    from earlier text and verify (decode/), for fewer steps and, but for rounding (`Engine.step`), the same
    answer. Off by default: what an earlier request wrote may then decide a tie.
    Raises `ParameterError` for values out of range.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    speculate: bool = False

    def __post_init__(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) or not isinstance(self.stop, Iterable) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        for name, ok, wanted in (
            ("max_new_tokens", _whole(self.max_new_tokens) and self.max_new_tokens >= 1, "a whole number from 1"),
            ("temperature", _real(self.temperature) and 0 <= self.temperature <= 100, "from 0 to 100 (0 is greedy)"),
            ("top_p", _real(self.top_p) and 0 < self.top_p <= 1, "over 0, up to 1"),
            ("top_k", _whole(self.top_k) and self.top_k >= 0, "a whole number from 0 (0 is off)"),
            ("repetition_penalty", _real(self.repetition_penalty) and 0 < self.repetition_penalty <= 100, "over 0"),
            ("seed", _whole(self.seed) and self.seed >= 0, "a whole number from 0"),
            ("stop", all(isinstance(s, str) and s for s in stop), "strings that are not empty"),
            ("speculate", isinstance(self.speculate, bool | np.bool_), "True or False"),
        ):
            if not ok:
                raise ParameterError(f"{name} is {getattr(self, name)!r}, but must be {wanted}")
        for name in ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "speculate"):
            value = getattr(self, name)
            if isinstance(value, np.generic):  # provenance is JSON, which knows no numpy
                object.__setattr__(self, name, value.item())

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is all that sampling asks for."""
        return self.temperature == 0 and self.repetition_penalty == 1


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _real(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
