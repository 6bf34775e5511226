"""Decode steps by our kernels; the tower, prompts and longer drafts by ONNX Runtime.

Both work on the same weights and the same KV cache in the GPU's memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol
from warnings import warn

import numpy as np

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.cubins import NO_SHAPES, read_shapes
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.cursor import Cursor
from pulse_edge.engines.engine import Engine, Features, Rows, SavedCache
from pulse_edge.engines.native.check import BOUND, BYTE_BOUND, check_facts, judge
from pulse_edge.engines.native.cubins import (
    BuiltKernels,
    build_kernels,
    digest_of_all,
    find_cubins,
    kernels_of,
    launch_shapes,
    needed_kernels,
)
from pulse_edge.engines.native.driver import Gpu
from pulse_edge.engines.native.kernels import MOST_ROWS, Kernel
from pulse_edge.engines.native.runner import Executor, StepRunner
from pulse_edge.engines.native.steps import ByteCache, SharedCache, StepBuilder
from pulse_edge.engines.native.tuning import Choices, choices_of
from pulse_edge.engines.native.weights import SharedWeights, why_not
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import engine_module
from pulse_edge.errors import EngineError
from pulse_edge.log import LOGGER
from pulse_edge.progress import Progress
from pulse_edge.state import FACT

__all__ = ["BuiltKernels", "NativeEngine", "build_kernels", "open_engine", "why_not"]

# Of `Engine`. Steps of 2 to 8 rows run the same kernels: on an H100 a step of 8 rows of a 7B
# decoder takes 1.25 times that of one, in int4, at 0 and after 3,000 tokens.
DRAFT_COST, ROW_COST = 0.23, 0.003


class Base(Engine, Protocol):
    """ONNX Runtime's engine, as far as its memory is shared (`engines/onnxruntime.py`).

    Attributes:
        cache: its `values` are the keys and values of the layers.
        device_table: its `value` is the embeddings and a page's features.
    """

    cache: Any
    device_table: Any

    def cursor(self, slot: int | Numbers = 0) -> Cursor:
        """The cursor of a slot."""


def open_engine(bundle: Bundle, options: EngineOptions) -> NativeEngine:
    """Open a bundle on the first GPU.

    If `options.engine` is `auto`, ONNX Runtime takes over what the kernels cannot do, with a
    warning.

    Raises:
        EngineError: the kernels cannot run the bundle or on this GPU, they are not compiled and
            cannot be, or their logits are not ONNX Runtime's.
    """
    try:
        return open_checked(bundle, options)
    except EngineError as error:
        if options.engine != "auto":
            raise
        problem = str(error)
    warn(f"ONNX Runtime decodes instead of our kernels: {problem}", stacklevel=2)
    LOGGER.warning("ONNX Runtime decodes instead of our kernels: %s", problem)
    base = engine_module("onnxruntime").open_engine(bundle, options)
    engine = NativeEngine(base, None)
    engine.details["unused"] = problem
    return engine


def open_checked(
    bundle: Bundle,
    options: EngineOptions,
    byte_cache: bool = False,
) -> NativeEngine:
    """As `open_engine`, and never without kernels.

    Args:
        bundle: see `open_engine`.
        options: see `open_engine`.
        byte_cache: steps read a second KV cache of bytes, half as large as ONNX Runtime's.
    """
    if problem := why_not(bundle):
        raise EngineError(f"engine native cannot run {bundle.path}: {problem}")
    stack = ExitStack()  # the engine's, which adds to it as it runs
    try:
        gpu = Gpu(stack)
        stored = read_shapes(bundle, gpu.capability)
        # Another card of the same architecture may want others.
        choices = choices_of(stored if stored.card == gpu.name else NO_SHAPES)
        kernels = needed_kernels(bundle, gpu.shared_bytes, byte_cache, choices)
        with ThreadPoolExecutor(1) as pool:
            cubins = pool.submit(find_cubins, bundle, kernels, gpu.capability)
            engine = assemble(
                bundle,
                options,
                gpu,
                lambda _: gpu.load(cubins.result()),
                byte_cache,
                choices,
            )
        engine.details |= {
            "gpu": gpu.name,
            "architecture": f"sm{gpu.capability}",
            "tuned": bool(choices.chosen),
            "kernels": digest_of_all(kernels, gpu.capability),
            "device_memory": gpu.used,
        }
        facts = check_facts(bundle, options, gpu, cubins.result(), engine.details["launches"])
        engine.check(facts | {"byte_cache": byte_cache})
    except BaseException:
        stack.close()
        raise
    weakref.finalize(engine, stack.close)
    return engine


def assemble(
    bundle: Bundle,
    options: EngineOptions,
    executor: Executor,
    load: Callable[[Collection[Kernel]], None],
    byte_cache: bool = False,
    choices: Choices | None = None,
) -> NativeEngine:
    """An engine whose steps run on an executor. It is not checked yet.

    Args:
        bundle: that the kernels can run.
        options: of ONNX Runtime's engine, whose device is the executor's.
        executor: runs the steps.
        load: is called with all kernels before the first step.
        byte_cache: see `open_checked`.
        choices: launch shapes; None for the defaults.
    """
    text = bundle.manifest.model.text
    weights = SharedWeights(bundle, executor)
    base: Base = engine_module("onnxruntime").open_sharing(
        bundle, options, lambda session: weights.values(session, options.device)
    )
    values = base.cache.values
    layers = range(text.layers)
    rounded = None
    if byte_cache:
        rounded = _byte_cache(text, len(base.cursors), base.capacity, executor)
    cache = SharedCache(
        keys=tuple(values[f"{layer}.key"].data_ptr() for layer in layers),
        values=tuple(values[f"{layer}.value"].data_ptr() for layer in layers),
        slots=len(base.cursors),
        capacity=base.capacity,
        rounded=rounded,
    )
    placed = weights.placed(base.device_table.value.data_ptr())
    builder = StepBuilder(text, placed, cache, executor, tunings=choices)
    load(kernels_of(builder))
    runner = StepRunner(executor, builder, cache, text.vocab)
    engine = NativeEngine(base, runner)
    engine.weights = weights
    engine.details["launches"] = {
        "1 row": launch_shapes(builder.launches(1)),
        f"{MOST_ROWS} rows": launch_shapes(builder.launches(MOST_ROWS)),
    }
    return engine


def _byte_cache(text: TextSpec, slots: int, capacity: int, executor: Executor) -> ByteCache:
    positions = slots * text.kv_heads * capacity
    layers = range(text.layers)
    keys, values = (
        tuple(executor.allocate(positions * text.head_size) for _ in layers) for _ in range(2)
    )
    scales = tuple(executor.allocate(positions * 4) for _ in layers)
    return ByteCache(keys, values, scales)


class NativeEngine:
    """See `Engine`.

    Attributes:
        base: ONNX Runtime's engine.
        runner: runs the steps; None if ONNX Runtime does everything.
        weights: that both share.
        details: what `describe` says of the kernels.
    """

    def __init__(self, base: Base, runner: StepRunner | None) -> None:
        self.base = base
        self.runner = runner
        self._pending = True  # ONNX Runtime may have work on its streams
        self._rounded = 0  # positions that a cache of bytes has, too
        self.weights: SharedWeights | None = None
        self.details: dict[str, Any] = {}
        self.table_rows = base.table_rows
        self.row_cost = ROW_COST if runner else base.row_cost
        self.draft_cost = DRAFT_COST if runner else base.draft_cost
        self.most_rows = MOST_ROWS if runner else base.most_rows

    def check(self, facts: Mapping[str, FACT] | None = None) -> None:
        """Compare a few steps with ONNX Runtime's. The cache must be empty.

        Args:
            facts: if these were checked before, that result holds; None checks now.

        Raises:
            EngineError: they differ by more than rounding.
        """
        verdict = judge(self, self.base, facts)
        self._hand_over()
        error = verdict.error
        bound = BYTE_BOUND if self.runner and self.runner.cache.rounded else BOUND
        self.details["self_check"] = {
            "error": float(f"{error:.3g}"),
            "bound": bound,
            "remembered": verdict.remembered,
        }
        if not error <= bound:
            raise EngineError(
                f"engine native gives other logits than ONNX Runtime on this GPU: an error of "
                f"{error:.2g}, over {bound}; use --engine onnxruntime, and report this GPU"
            )

    @property
    def cursors(self) -> tuple[Cursor, ...]:
        """See `Engine`."""
        return self.base.cursors

    @property
    def capacity(self) -> int:
        """See `Engine`."""
        return self.base.capacity

    @property
    def length(self) -> int:
        """See `Engine`."""
        return self.base.length

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Features:
        """See `Engine`."""
        self._hand_over()
        return self.base.encode(pixels, cancellation)

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        """See `Engine`."""
        return self.base.rows(numbers, page)

    def prefill(
        self,
        rows: Rows,
        progress: Progress | None = None,
        slot: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        """See `Engine`."""
        self._hand_over()
        return self.base.prefill(rows, progress, slot, cancellation)

    def choose(self, rows: Rows, slot: int | Numbers = 0) -> Numbers:
        """See `Engine`."""
        if self.runner is None or not 0 < len(rows) <= MOST_ROWS:
            self._hand_over()
            return self.base.choose(rows, slot)
        chosen: Numbers = self._append(self.runner.choose, rows, slot)
        return chosen

    def step(self, rows: Rows, slot: int | Numbers = 0) -> Floats:
        """See `Engine`."""
        if self.runner is None or not 0 < len(rows) <= MOST_ROWS:
            self._hand_over()
            return self.base.step(rows, slot)
        logits: Floats = self._append(self.runner.step, rows, slot)
        return logits

    def _hand_over(self) -> None:
        """ONNX Runtime is about to work, and may append behind the cache's length."""
        self._pending = True
        self._rounded = min(self._rounded, self.length)

    def _append(self, run: Callable[..., Any], rows: Rows, slot: int | Numbers) -> Any:
        if rows.ndim != 1:
            raise ValueError(f"rows are of shape {rows.shape}; `Engine.rows` makes those that fit")
        cursor = self.base.cursor(slot)
        with cursor.appending(len(rows)) as position:
            if self._pending and self.runner:
                self.runner.wait_for_others()
                self.runner.round_cache(self._rounded, position)
                self._pending = False
            self._rounded = position
            appended = run(rows, np.zeros(len(rows), np.int64), np.array([position]))
            self._rounded += len(rows)
            return appended

    def rewind(self, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        self.base.rewind(length, slot)
        self._rounded = min(self._rounded, length)

    def reset(self, slot: int = 0) -> None:
        """See `Engine`."""
        self.base.reset(slot)
        self._hand_over()

    def saved_size(self, length: int) -> int:
        """See `Engine`. The kernels' own cache is not copied."""
        return 0

    def save(self, length: int, slot: int = 0) -> SavedCache:
        """See `Engine`."""
        return self.base.save(length, slot)

    def restore(self, saved: SavedCache, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        self.base.restore(saved, length, slot)

    def copy(self, length: int, source: int, slot: int) -> None:
        """See `Engine`."""
        self.base.copy(length, source, slot)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        described = self.base.describe()
        if self.runner is None:
            return described | {"native": self.details}
        steps = f"1 to {MOST_ROWS} rows by own kernels, the rest by ONNX Runtime"
        return described | {"engine": "native", "native": {"steps": steps, **self.details}}
