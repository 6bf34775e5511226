"""Finds how a decoder's products are best spread over the GPU at hand, by timing whole steps.

A product by itself is no guide: kernels overlap, and what one leaves free the next one uses. So
each candidate is timed within a step, with the other products as they are best so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.cubins import LaunchShape, Shapes
from pulse_edge.engines.native.compiler import Compiler
from pulse_edge.engines.native.driver import Gpu
from pulse_edge.engines.native.kernels import (
    MOST_ROWS,
    Kernel,
    Product,
    Tuning,
    tuning_of,
)
from pulse_edge.engines.native.runner import Executor
from pulse_edge.engines.native.steps import GATE_UP, Launch, SharedCache, StepBuilder
from pulse_edge.engines.native.weights import SharedWeights
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

PRODUCTS = ("qkv", "output", GATE_UP, "down", "head")
POSITION = 600  # of the steps that are timed: a short answer about a page
CAPACITY = 640  # of their cache
# (warps, stages, tiles, CTAs of a multiprocessor, resident CTAs): those that were near the best of
# some product in a sweep of an H100.
CANDIDATES = tuple(
    Tuning(*values)
    for values in (
        (4, 4, 1, 4, 8),
        (4, 4, 2, 3, 3),
        (4, 6, 2, 2, 2),
        (8, 2, 1, 2, 3),
        (8, 2, 2, 1, 1),
        (8, 3, 2, 1, 1),
        (8, 4, 1, 1, 2),
        (8, 4, 1, 2, 4),
        (8, 4, 2, 1, 1),
        (8, 4, 2, 1, 2),
        (8, 6, 2, 1, 1),
        (12, 3, 2, 1, 1),
        (16, 2, 2, 1, 1),
        (16, 3, 1, 1, 1),
        (16, 3, 1, 1, 2),
    )
)
BETTER = 0.995  # of the time before, at most: less is noise


class TimedExecutor(Executor, Protocol):
    """An executor with a clock."""

    def milliseconds(self, graph: Any) -> float:
        """Of a captured graph: the median of some replays. The context must be current."""


@dataclass
class Choices:
    """The tuning of each product, by name and for several rows; `StepBuilder` asks it.

    Attributes:
        chosen: where it is not the default.
    """

    chosen: dict[tuple[str, bool], Tuning]

    def __call__(self, name: str, product: Product, several: bool) -> Tuning:
        return self.chosen.get((name, several)) or tuning_of(product, several)


class Tuner:
    """Tunes the products of a decoder.

    Args:
        executor: the GPU.
        choices: that the builder asks; they become the best.
        builder: of the decoder's steps.
        load: makes kernels runnable.
    """

    def __init__(
        self,
        executor: TimedExecutor,
        choices: Choices,
        builder: StepBuilder,
        load: Callable[[Collection[Kernel]], None],
    ) -> None:
        self._executor = executor
        self._choices = choices
        self._builder = builder
        self._load = load

    def tune(self, progress: Progress | None = None) -> dict[int, tuple[float, float]]:
        """Try all candidates of all products, for one row and for eight.

        Returns:
            Milliseconds of a step before and after, by rows.
        """
        self._load(list(dict.fromkeys(launch.kernel for launch in self._all_launches())))
        self._executor.write(self._builder.lengths, np.full(1, POSITION, np.int32))
        total = 2 * len(PRODUCTS)
        if progress:
            progress("tuning", 0, total)
        times = {}
        for rows in (1, MOST_ROWS):
            before = best = self._time(rows)
            for name in PRODUCTS:
                best = self._tune_product(name, rows, best)
                if progress:
                    progress("tuning", 1, total)
            times[rows] = (before, best)
        return times

    def _all_launches(self) -> Iterator[Launch]:
        for rows in (1, MOST_ROWS):
            yield from self._builder.launches(rows)
            for name in PRODUCTS:
                for _ in self._tried(name, rows):
                    yield from self._builder.launches(rows)

    def _tried(self, name: str, rows: int) -> Iterator[Tuning]:
        """Each candidate while it is chosen; afterwards the choice is what it was."""
        key = (name, rows > 1)
        former = self._choices.chosen.get(key)
        for candidate in CANDIDATES:
            self._choices.chosen[key] = candidate
            yield candidate
        if former:
            self._choices.chosen[key] = former
        else:
            del self._choices.chosen[key]

    def _tune_product(self, name: str, rows: int, best: float) -> float:
        """The time of a step with the best candidate, which is chosen."""
        seen: set[tuple[Kernel, tuple[int, int, int]]] = set()
        winner: Tuning | None = None
        for candidate in self._tried(name, rows):
            # Candidates that do not fit this GPU become others.
            shapes = {(launch.kernel, launch.grid) for launch in self._builder.launches(rows)}
            if shapes <= seen:
                continue
            seen |= shapes
            try:
                milliseconds = self._time(rows)
            except EngineError:  # not launchable here
                continue
            if milliseconds < BETTER * best:
                winner, best = candidate, milliseconds
        if winner:
            self._choices.chosen[name, rows > 1] = winner
        return best

    def _time(self, rows: int) -> float:
        launches = self._builder.launches(rows)

        def issue() -> None:
            for launch in launches:
                self._executor.launch(launch, launch.early)

        with self._executor.current():
            issue()  # the first launch of a kernel loads its code
            self._executor.finish()
            graph = self._executor.capture(issue)
            return self._executor.milliseconds(graph)


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        shapes: to be stored.
        milliseconds: of a step before and after, by rows.
    """

    shapes: Shapes
    milliseconds: dict[int, tuple[float, float]]


def choices_of(shapes: Shapes) -> Choices:
    """The tunings that stored shapes say."""
    return Choices(
        {
            (s.product, s.several): Tuning(s.warps, s.stages, s.tiles, s.ctas, s.resident, s.slot)
            for s in shapes.found
        }
    )


def shapes_of(choices: Choices, card: str) -> Shapes:
    """Tunings as they are stored."""
    found = tuple(
        LaunchShape(product, several, t.warps, t.stages, t.tiles, t.ctas, t.resident, t.slot)
        for (product, several), t in sorted(choices.chosen.items())
    )
    return Shapes(card, found)


def tune_bundle(bundle: Bundle, progress: Progress | None = None) -> Tuned:
    """Find the launch shapes that are fastest on this machine's first GPU.

    The bundle's weights are on the GPU meanwhile, with a short KV cache; ONNX Runtime is not.

    Raises:
        EngineError: there is no GPU or no compiler, or the weights do not fit.
    """
    text = bundle.manifest.model.text
    with ExitStack() as stack:
        gpu = Gpu(stack)
        compiler = Compiler()
        weights = SharedWeights(bundle, gpu)
        size = 2 * text.kv_heads * CAPACITY * text.head_size
        keys, values = (tuple(gpu.allocate(size) for _ in range(text.layers)) for _ in range(2))
        cache = SharedCache(keys, values, slots=1, capacity=CAPACITY)
        table = gpu.allocate(2 * text.hidden)  # its row 0 is the token of all steps
        gpu.write(table, np.full(text.hidden, 0.02, np.float16))
        choices = Choices({})
        builder = StepBuilder(text, weights.placed(table), cache, gpu, tunings=choices)
        loaded: set[Kernel] = set()

        def load(kernels: Collection[Kernel]) -> None:
            new = [kernel for kernel in kernels if kernel not in loaded]
            gpu.load(compiler.compile(new, gpu.capability, progress))
            loaded.update(new)

        times = Tuner(gpu, choices, builder, load).tune(progress)
        return Tuned(shapes_of(choices, gpu.name), times)
