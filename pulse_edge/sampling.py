"""Logits -> token id. Greedy unless a temperature is set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import EngineError, ParameterError

NOT_FINITE = "the model's logits are not finite; its numbers may be too large for this precision"


@dataclass(frozen=True)
class SamplingParams:
    """How to generate. Greedy by default, like ECGBench's evaluation.

    temperature: 0 is greedy. top_k: 0 is off. top_p: 1 is off. repetition_penalty: 1 is off; it sees the tokens
    generated so far, not the prompt (as upstream, which generates from embeddings). seed: of the sampler;
    the same seed gives the same answer. stop: strings that end the answer and are not part of it. speculate: draft
    from earlier text and verify (lookup.py), for fewer steps and, but for rounding (`backends.Engine.step`), the same
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


class Sampler:
    """One answer's sampler: parameters, random state, tokens seen."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._random = np.random.Generator(np.random.PCG64(params.seed))
        self._seen: set[int] = set()

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Next token for `logits` [vocab]. Order of steps is Hugging Face's: penalty, temperature, top-k, top-p.

        Raises `EngineError` for logits that hold a NaN or are infinite.
        """
        params = self._params
        if not np.isfinite(logits.max()):
            raise EngineError(NOT_FINITE)
        if params.repetition_penalty != 1 and self._seen:
            logits = penalise(logits, self._seen, params.repetition_penalty)
        token = int(logits.argmax()) if params.temperature == 0 else self._draw(logits)
        self._seen.add(token)
        return token

    def _draw(self, logits: NDArray[np.float32]) -> int:
        params = self._params
        order = np.argsort(-logits, kind="stable")
        if params.top_k:
            order = order[: params.top_k]
        below = logits[order].astype(np.float64) - float(logits[order[0]])  # the best is 0: nothing overflows upwards
        with np.errstate(over="ignore"):
            weights = np.exp(below / params.temperature)
        weights /= weights.sum()
        if params.top_p < 1:  # the smallest set whose mass reaches top_p
            kept = int(np.searchsorted(np.cumsum(weights), params.top_p)) + 1
            order, weights = order[:kept], weights[:kept] / weights[:kept].sum()
        return int(self._random.choice(order, p=weights))


def penalise(logits: NDArray[np.float32], seen: Iterable[int], penalty: float) -> NDArray[np.float32]:
    """A copy with seen tokens less likely: positive logits divided, negative multiplied (CTRL, arXiv 1909.05858)."""
    logits = logits.copy()
    tokens = np.fromiter(seen, np.int64)
    values = logits[tokens]
    logits[tokens] = np.where(values > 0, values / penalty, values * penalty)
    return logits
