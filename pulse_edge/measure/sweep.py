"""Times the engine alone, in llama-bench's manner.

`pp512` prefills 512 positions, `tg128 @ d512` takes 128 steps after 512. Each point comes with its
least work and traffic.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.engine import Engine, Rows
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost
from pulse_edge.measure.figures import Point, point_name
from pulse_edge.measure.peaks import Peaks
from pulse_edge.measure.warmup import is_stable, is_warm
from pulse_edge.progress import Progress

# What a point of each kind measures.
SWEPT = {
    "pp": "prefill from an empty cache, engine alone",
    "tg": "single steps at a depth, engine alone",
}

_LEAST = {
    "repetitions": 1,
    "warmup": 0,
    "warmup_limit": 0,
    "new_tokens": 2,
    "prompt_lengths": 1,
    "depths": 0,
}


@dataclass(frozen=True)
class Settings:
    """How much to measure. Raises `ParameterError` for values out of range.

    Points of a sweep that the context does not hold are skipped, and named in the record.

    Attributes:
        repetitions: of a request and of each point.
        warmup: repetitions before those, thrown away. More follow until two in a row take as long
            within 5 %, unless it is 0.
        warmup_limit: most repetitions of a warm-up; `warmup` counts if it is more.
        new_tokens: of a cold request, and steps of each tg run.
        prompt_lengths: tokens of each pp run.
        depths: cached tokens before each tg run.
        quick: measure the peaks with small buffers, for a rough figure.
    """

    repetitions: int = 5
    warmup: int = 1
    warmup_limit: int = 5
    new_tokens: int = 128
    prompt_lengths: tuple[int, ...] = (128, 512, 1024, 2048, 2933)
    depths: tuple[int, ...] = (0, 512, 3000)
    quick: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if min(values, default=least) < least:
                raise ParameterError(f"{name} is {value!r}, but must be whole numbers from {least}")


FULL = Settings()
# As many repetitions as FULL: of fewer, chance alone would often fail a comparison.
QUICK = Settings(new_tokens=16, prompt_lengths=(128,), depths=(0,), quick=True)


@dataclass(frozen=True)
class Run:
    """A point of a sweep, and the seconds of each of its repetitions.

    Attributes:
        kind: see `Point`.
        tokens: see `Point`.
        depth: see `Point`.
        seconds: of each repetition, filled while the sweep runs.
        warmup: of those before them, thrown away.
    """

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int
    seconds: list[float] = field(default_factory=list)
    warmup: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As llama-bench has it."""
        return point_name(self.kind, self.tokens, self.depth)

    @property
    def warmed(self) -> dict[str, Any]:
        """How the warm-up ended, JSON-ready."""
        return {"repetitions": len(self.warmup), "stable": is_stable(self.warmup)}


def plan_runs(settings: Settings, capacity: int) -> tuple[list[Run], list[str]]:
    """The points to measure, and those that the context does not hold, with the reason.

    Args:
        settings: which points. One that is named twice runs once.
        capacity: of the engine's cache.

    Raises:
        ParameterError: no point of a kind fits.
    """
    points = [Run("pp", n, 0) for n in dict.fromkeys(settings.prompt_lengths)]
    points += [Run("tg", settings.new_tokens, d) for d in dict.fromkeys(settings.depths)]
    runs = [run for run in points if run.depth + run.tokens <= capacity]
    for kind, title in (("pp", "prompt lengths"), ("tg", "depths")):
        names = [run.name for run in points if run.kind == kind]
        if names and kind not in {run.kind for run in runs}:
            raise ParameterError(
                f"none of the {title} fits the context of {capacity} tokens "
                f"({', '.join(names)}); name shorter ones"
            )
    return runs, [f"{run.name}: context {capacity}" for run in points if run not in runs]


def sweep(
    engine: Engine,
    text: TextSpec,
    settings: Settings,
    runs: list[Run],
    say: Progress = lambda *_: None,
    cancellation: Cancellation | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Measure points. Leaves the cache filled with noise.

    Args:
        engine: whose cache is overwritten.
        text: the model's sizes; tokens are drawn from its vocabulary.
        settings: how often.
        runs: of `plan_runs`; each repetition is added when it is complete, so that an interrupted
            sweep keeps them.
        say: told after each repetition.
        cancellation: ends it within a step, or in the midst of a prefill.
        clock: seconds.

    Raises:
        Cancelled: by the cancellation.
    """
    stop = cancellation or Cancellation()
    rng = np.random.default_rng(0)
    for run in runs:
        noise = engine.rows(rng.integers(0, text.vocab, run.depth + run.tokens))
        engine.rewind(0)
        if run.depth:
            engine.prefill(noise[: run.depth], cancellation=stop)
        say(run.name, 0, settings.repetitions)
        while len(run.seconds) < settings.repetitions:
            warm = is_warm(run.warmup, settings.warmup, settings.warmup_limit)
            engine.rewind(run.depth)
            seconds = _run_once(engine, run.kind, noise[run.depth :], stop, clock)
            (run.seconds if warm else run.warmup).append(seconds)
            say(run.name, int(warm), settings.repetitions)


def _run_once(
    engine: Engine, kind: str, rows: Rows, stop: Cancellation, clock: Callable[[], float]
) -> float:
    """Seconds of one prefill of n rows, or of n greedy steps."""
    start = clock()
    if kind == "pp":
        engine.prefill(rows, cancellation=stop)
    else:
        for at in range(len(rows)):
            stop.check()  # 0.1 us
            engine.choose(rows[at : at + 1])
    return clock() - start


class RunCost:
    """Least work and traffic of the decoder, for runs of one bundle.

    Attributes:
        gemm_type: type that the CPU's kernels multiply. Prefill is compared with its peak.
        weights: bytes of the decoder and its head.
    """

    def __init__(self, bundle: Bundle, chunk: int) -> None:
        """`chunk`: tokens of a prompt in one pass, 0 for all."""
        manifest = bundle.manifest
        multiplies_int8 = manifest.target == "cpu" and manifest.precision.activations != "fp32"
        self.gemm_type = "int8" if multiplies_int8 else "fp32"
        self.weights = sum(f.size for f in manifest.files if f.path.startswith(DECODER_GRAPH))
        self._text = manifest.model.text
        self._chunk = chunk
        self._row = cost.cache_row(self._text, manifest.precision.kv_cache)  # bytes of a position

    def __call__(self, run: Run) -> tuple[int, int]:
        """(FLOP, bytes) of one repetition.

        Each pass reads the weights, and what the cache holds before it.
        """
        flop = 0
        read = 0
        for before, rows in cost.passes(
            run.tokens, run.depth, 1 if run.kind == "tg" else self._chunk
        ):
            flop += cost.linear(self._text, rows) + cost.attention(self._text, before, rows)
            read += self.weights + self._row * before
        return flop, read


def point_of_run(run: Run, cost_of: RunCost, peaks: Peaks | None, cache: int | None) -> Point:
    """A run's rates at its median, and their shares of the peaks.

    Args:
        run: with at least one repetition.
        cost_of: of the bundle that ran.
        peaks: of this machine; None if they were not measured.
        cache: bytes of the last-level cache. Weights of less than twice that may be read from it,
            so a share of the memory's peak would say nothing.
    """
    flop, read = cost_of(run)
    seconds = statistics.median(run.seconds)
    gemm = peaks.gemm.get(cost_of.gemm_type) if peaks else None
    from_memory = peaks is not None and cost_of.weights > 2 * (cache or 0)
    return Point(
        kind=run.kind,
        tokens=run.tokens,
        depth=run.depth,
        flop=flop,
        read=read,
        flop_per_s=flop / seconds,
        gemm_share=flop / seconds / gemm if gemm else None,
        read_per_s=read / seconds,
        read_share=read / seconds / peaks.read if peaks and from_memory else None,
    )
