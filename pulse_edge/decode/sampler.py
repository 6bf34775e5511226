"""Logits -> token id. Greedy unless a temperature is set."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pulse_edge.decode.constraint import Constraint
from pulse_edge.decode.logprobs import Logprobs, TokenLogprob
from pulse_edge.errors import EngineError
from pulse_edge.params import GenerationParams

Logits = NDArray[np.float32]
NOT_FINITE = "the model's logits are not finite; its numbers may be too large for this precision"


class Sampler:
    """One answer's sampler: parameters, random state, tokens seen.

    Args:
        params: how to choose.
        constraint: on what may be chosen; None if everything may.
        logprobs: reads the logits of each token; None if nobody asks for that.

    Attributes:
        logprob: of the last token, under the distribution that the model gave: before the penalty,
            the constraint and the temperature. None without `logprobs`.
        needs_logits: False if the likeliest token of each row is all that it takes.
    """

    def __init__(
        self,
        params: GenerationParams,
        constraint: Constraint | None = None,
        logprobs: Logprobs | None = None,
    ) -> None:
        self._params = params
        self._constraint = constraint
        self._logprobs = logprobs
        self._seen: set[int] = set()
        self.logprob: TokenLogprob | None = None
        self.needs_logits = not params.greedy or bool(constraint or logprobs)

    def __call__(self, logits: Logits) -> int:
        """Next token for `logits` [vocab].

        The order of steps is Hugging Face's: penalty, constraint, temperature, top-k, top-p.

        Raises:
            EngineError: the logits hold a NaN, or the largest is infinite.
            ParameterError: the schema proves too complex to follow.
        """
        given = logits
        params = self._params
        if not np.isfinite(logits.max()):
            raise EngineError(NOT_FINITE)
        if params.repetition_penalty != 1 and self._seen:
            logits = penalise(logits, self._seen, params.repetition_penalty)
        if self._constraint is not None:
            logits = self._constraint.masked(logits)
        greedy = params.temperature == 0
        token = int(logits.argmax()) if greedy else self._draw(logits)
        self._seen.add(token)
        if self._constraint is not None:
            self._constraint.accept(token)
        if self._logprobs is not None:
            self.logprob = self._logprobs(given, token)
        return token

    @property
    def ended(self) -> bool:
        """Whether the constraint leaves nothing to add."""
        return self._constraint is not None and self._constraint.ended

    @cached_property
    def _random(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self._params.seed))

    def _draw(self, logits: Logits) -> int:
        params = self._params
        order = np.argsort(-logits, kind="stable")
        if params.top_k:
            order = order[: params.top_k]
        # Relative to the best, so that exp cannot overflow.
        below = logits[order].astype(np.float64) - float(logits[order[0]])
        with np.errstate(over="ignore"):
            weights = np.exp(below / params.temperature)
        weights /= weights.sum()
        if params.top_p < 1:  # the smallest set whose mass reaches top_p
            kept = int(np.searchsorted(np.cumsum(weights), params.top_p)) + 1
            order = order[:kept]
            weights = weights[:kept] / weights[:kept].sum()
        return int(self._random.choice(order, p=weights))


def penalise(logits: Logits, seen: Iterable[int], penalty: float) -> Logits:
    """A copy of logits [vocab] with seen tokens less likely, if `penalty` is over 1.

    Positive logits are divided by it, negative ones multiplied (CTRL, arXiv 1909.05858).
    """
    logits = logits.copy()
    tokens = np.fromiter(seen, np.int64)
    values = logits[tokens]
    logits[tokens] = np.where(values > 0, values / penalty, values * penalty)
    return logits
