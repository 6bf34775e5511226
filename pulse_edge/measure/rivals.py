"""Measures a CPU's engines on a bundle, one after the other, in a few seconds each."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import numpy as np

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.faster import rival_engines
from pulse_edge.engines.options import PREFILL_CHUNK, EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError

STEPS = 12  # that are measured
# A request about a page, which the measurement is scaled to: tokens of the prompt, and of the
# answer.
PAGE, ANSWER = 2933, 200


def measure_rivals(
    bundle: Bundle, threads: int = 0, told: Callable[[str], None] | None = None
) -> dict[str, float]:
    """Predicted seconds of a request about a page, by engine.

    Engines are opened one after the other, so there is never memory needed for two.

    Args:
        bundle: for the CPU.
        threads: see `EngineOptions`.
        told: is called with the name of an engine that cannot run the bundle, and why.
    """
    seconds: dict[str, float] = {}
    for name in rival_engines():
        try:
            engine = open_engine(bundle, EngineOptions("cpu", threads, engine=name))
            seconds[name] = page_seconds(engine)
        except EngineError as error:
            if told:
                told(f"{name}: {error}")
        engine = None  # type: ignore[assignment]
        gc.collect()
    return seconds


def page_seconds(engine: Engine, clock: Callable[[], float] = time.perf_counter) -> float:
    """Predicted seconds of a request about a page: a chunk of a prompt and some steps, scaled.

    Args:
        engine: with an empty cache.
        clock: seconds since any moment.
    """
    steps = min(STEPS, engine.capacity // 4)
    rows = engine.rows(np.arange(engine.capacity - steps)[:PREFILL_CHUNK] % engine.table_rows)
    prompts: list[float] = []
    for _ in range(2):  # the first one allocates
        engine.reset()
        start = clock()
        engine.prefill(rows)
        prompts.append(clock() - start)
    times: list[float] = []
    for _ in range(steps):
        start = clock()
        engine.choose(rows[:1])
        times.append(clock() - start)
    engine.reset()
    return min(prompts) / len(rows) * PAGE + statistics.median(times) * ANSWER
