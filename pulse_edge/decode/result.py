"""What one run of the decode loop did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pulse_edge.cancellation import Cancellation
from pulse_edge.decode.logprobs import TokenLogprob

# the model ended, or its schema left nothing to add | a stop string | max_new_tokens |
# the cache is full | time is up | the caller left
FinishReason = Literal["eos", "stop", "length", "context", "deadline", "cancelled"]


@dataclass
class Generation:
    """What one run of the loop did; filled while it runs.

    Times are seconds of `clock`.
    """

    clock: Callable[[], float] = time.perf_counter

    tokens: list[int] = field(default_factory=list)  # without the end token
    # Of each of `tokens`, if they are asked for. Another thread may read what there is.
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason = "cancelled"  # until another one is known
    cancellation: Cancellation = field(default_factory=Cancellation)  # stops it after a token
    first_token_at: float | None = None
    last_token_at: float | None = None
    step_seconds: list[float] = field(default_factory=list)  # engine time of each decode step
    shared_steps: int = 0  # of them, while other requests were under way
    drafted: int = 0  # tokens that steps ran ahead of sampling
    accepted: int = 0  # drafted tokens that were then sampled, and took no step of their own
    sample_seconds: float = 0.0
    detokenise_seconds: float = 0.0
