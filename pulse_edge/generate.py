"""The decode loop: logits -> token -> text -> next logits, until there is a reason to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .backends import Engine
from .prompt import TextStream
from .sampling import Sampler, SamplingParams

Floats = NDArray[np.float32]
# the model ended | a stop string | max_new_tokens | the cache is full | the caller left
FinishReason = Literal["eos", "stop", "length", "context", "cancelled"]


@dataclass
class Generation:
    """What one run of the loop did; filled while it runs. Times in seconds."""

    tokens: list[int] = field(default_factory=list)  # without the end token
    finish_reason: FinishReason = "cancelled"  # until another one is known
    cancelled: bool = False  # set from outside: stop after this token
    first_token_at: float | None = None  # time.perf_counter()
    last_token_at: float | None = None
    step_seconds: list[float] = field(default_factory=list)  # engine time of each decode step
    sample_seconds: float = 0.0
    detokenise_seconds: float = 0.0


def generate(
    engine: Engine,
    embed: Callable[[list[int]], Floats],
    logits: Floats,
    params: SamplingParams,
    eos: tuple[int, ...],
    text: TextStream,
    out: Generation,
) -> Iterator[str]:
    """Yield the answer's text as it becomes certain, starting from the prompt's last `logits` [vocab]."""
    sample, now = Sampler(params), time.perf_counter
    while True:
        start = now()
        token = sample(logits)
        sampled = now()
        out.sample_seconds += sampled - start
        out.first_token_at, out.last_token_at = out.first_token_at or sampled, sampled
        if token in eos:
            out.finish_reason = "eos"
            break
        out.tokens.append(token)
        piece = text.push(token)
        out.detokenise_seconds += now() - sampled
        if piece:
            yield piece
        if out.cancelled:
            return
        reason = _stop_reason(engine, params, text, out)
        if reason:
            out.finish_reason = reason
            break
        start = now()
        logits = engine.step(embed([token]))[0]
        out.step_seconds.append(now() - start)
    rest = text.finish()
    if rest:
        yield rest


def _stop_reason(engine: Engine, params: SamplingParams, text: TextStream, out: Generation) -> FinishReason | None:
    if text.stopped:
        return "stop"
    if len(out.tokens) >= params.max_new_tokens:
        return "length"
    if engine.length >= engine.capacity:
        return "context"
    return None
