"""A clock that only work moves, and an engine whose calls take known seconds by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from pulse_edge import runner
from pulse_edge.decode.sampler import Logits, Sampler
from pulse_edge.engines.engine import Engine
from pulse_edge.page import preparation
from pulse_edge.text.tokenizer import Tokenizer

T = TypeVar("T")
# Seconds of each kind of work. Sums of them are exact, and tell what was added.
DECODE_IMAGE = 1.0
PREPROCESS = 2.0
VISION = 4.0
PREFILL = 8.0
STEP = 16.0
SAMPLE = 1 / 4
DETOKENISE = 1 / 16


class WorkClock:
    """Stands still but for `add`."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def add(self, seconds: float) -> None:
        self.now += seconds

    def taking(self, seconds: float, work: Callable[..., T]) -> Callable[..., T]:
        """`work`, which takes that long."""

        def timed(*arguments: Any, **options: Any) -> T:
            self.now += seconds
            return work(*arguments, **options)

        return timed


class TickingEngine:
    """An engine whose calls take the seconds above."""

    def __init__(self, engine: Engine, clock: WorkClock) -> None:
        self.engine = engine
        self.encode = clock.taking(VISION, engine.encode)
        self.prefill = clock.taking(PREFILL, engine.prefill)
        self.choose = clock.taking(STEP, engine.choose)
        self.step = clock.taking(STEP, engine.step)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def take_time(clock: WorkClock, patch: pytest.MonkeyPatch) -> None:
    """Let everything but the engine take the seconds above."""

    class TickingSampler(Sampler):
        def __call__(self, logits: Logits) -> int:
            clock.add(SAMPLE)
            return super().__call__(logits)

    patch.setattr(runner, "Sampler", TickingSampler)
    for module, name, seconds in (
        (preparation, "decode_page", DECODE_IMAGE),
        (preparation, "preprocess", PREPROCESS),
    ):
        patch.setattr(module, name, clock.taking(seconds, getattr(module, name)))
    patch.setattr(Tokenizer, "piece_bytes", clock.taking(DETOKENISE, Tokenizer.piece_bytes))
