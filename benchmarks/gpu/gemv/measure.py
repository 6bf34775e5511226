"""Times of the kernels on a GPU. Every variant is checked against float64 before it is timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.gpu.emit import emit
from benchmarks.gpu.gemv import check, kernels
from benchmarks.gpu.gemv.check import Array, Problem
from benchmarks.gpu.gemv.driver import CudaError, Gpu, Kernel, Launch, Pointer
from benchmarks.gpu.gemv.kernels import HEAD, LAYER, OLDEST_ARCH, Shape, Variant
from benchmarks.gpu.gemv.nvrtc import Compiled, CompileError, Compiler

REPLAYS = 30
WARM_UPS = 4
CHECKED = 256  # outputs of a product
ROWS = 8  # of activations, in the second step that is timed
COPY_BYTES = 1 << 30
SECONDS = 33.0  # after which no further variant is begun
RETRIED = 3  # variants of a product that are also tried within a whole step
EARLY_ARCH = 90  # the first with programmatic dependent launch


class NothingMeasured(Exception):
    """Why there is no result at all."""


class Unusable(Exception):
    """Why a variant is not timed."""


@dataclass(frozen=True)
class Weights:
    """Of one product, on the device."""

    w: Pointer
    scales: Pointer


@dataclass(frozen=True)
class Ready:
    """A variant that has passed the check for a product."""

    variant: Variant
    kernel: Kernel
    error: float
    registers: int | None


Choice = Mapping[Shape, Ready]  # of a variant for each product of a step


@dataclass(frozen=True)
class Timing:
    """Microseconds of one product."""

    us: float
    ready: Ready


Timings = Mapping[Shape, Sequence[Timing]]  # the fastest first


@dataclass
class Buffers:
    """Activations on the device, for up to 8 rows, in a step's order."""

    start: Pointer  # [8, 11008], what the first layer reads
    norm: Pointer
    hidden: tuple[Pointer, Pointer]  # after a layer, in turn
    between: Pointer  # after attention
    outputs: dict[Shape, Pointer]  # of qkv, gate+up and head


class Measurement:
    """One GPU with the weights of a step on it.

    Args:
        gpu: where to measure.
        compiler: for its architecture.
        layers: of the step; 32 for the whole one.
        source: text of gemv.cu.

    Raises:
        CudaError: the weights do not fit.
    """

    def __init__(self, gpu: Gpu, compiler: Compiler, layers: int, source: str) -> None:
        self._start = time.monotonic()
        self._gpu = gpu
        self._compiler = compiler
        self._source = source
        self._shapes = (*LAYER, HEAD)
        self._compiling: dict[Variant, Future[Compiled]] = {}
        self._ready: dict[tuple[Variant, Shape], Ready | Unusable] = {}
        self._expected: dict[tuple[Shape, int], tuple[Array, Array]] = {}
        self._early = gpu.arch >= EARLY_ARCH
        self._events = [(gpu.event(), gpu.event()) for _ in range(REPLAYS)]
        self._best: tuple[float, str, bool] | None = None  # ms of a step of one row
        generator = np.random.default_rng(0)
        size = max(shape.weight_bytes for shape in self._shapes)
        self._bytes = np.frombuffer(generator.bytes(size), np.uint8)
        scales = max(shape.scale_bytes for shape in self._shapes) // 2
        self._scales = check.random_scales(generator, scales)
        self._x = generator.normal(size=ROWS * max(s.k for s in LAYER)).astype(np.float16)
        self._norm = (1 + 0.1 * generator.normal(size=HEAD.k)).astype(np.float16)
        self._layers, self._head = self._upload_weights(layers)
        self._buffers = self._upload_activations()
        self._pool = ThreadPoolExecutor(8)
        self._compile_all()

    @property
    def measured(self) -> bool:
        """A whole step was timed."""
        return self._best is not None

    def close(self) -> None:
        """Drop compilations that have not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self) -> None:
        """Measure, the most valuable first.

        Raises:
            NothingMeasured: no variant works.
            CudaError: the GPU does not work any more.
        """
        default = {shape: self._first_usable(shape) for shape in self._shapes}
        self._steps(default, "default")
        self._copy()
        self._eight_rows()
        best = self._sweep()
        for early, timings in best.items():
            if set(timings) >= set(LAYER):
                self._best_step(timings, early)
        if self._best is None:
            raise NothingMeasured("no step gave the right numbers")
        ms, name, early = self._best
        emit("gemv best", ms=round(ms, 4), variant=name, early=early)

    def _compile_all(self) -> None:
        """In the order in which they are needed: defaults, 8 rows, the rest."""
        wanted = [kernels.candidates(shape)[0] for shape in self._shapes]
        wanted += [kernels.of_rows(shape, ROWS) for shape in self._shapes]
        wanted += [variant for shape in self._shapes for variant in kernels.candidates(shape)]
        for variant in wanted:
            if variant not in self._compiling and self._obstacle(variant) is None:
                self._compiling[variant] = self._pool.submit(
                    self._compiler.compile, self._source, self._gpu.arch, variant.defines
                )

    def _obstacle(self, variant: Variant) -> str | None:
        """Why this GPU cannot run a variant."""
        if self._gpu.arch < OLDEST_ARCH[variant.loads]:
            return f"needs sm_{OLDEST_ARCH[variant.loads]}"
        if self._gpu.shared_bytes < variant.shared_bytes:
            return f"needs {variant.shared_bytes} bytes of shared memory"
        return None

    def _upload_weights(self, layers: int) -> tuple[list[dict[Shape, Weights]], Weights]:
        """Each product has memory of its own. All hold the beginning of one random pool."""
        sizes = (self._bytes.nbytes, self._scales.nbytes)
        pool = Weights(*(self._gpu.allocate(size) for size in sizes))
        self._gpu.write(pool.w, self._bytes)
        self._gpu.write(pool.scales, self._scales)
        total = HEAD.bytes + layers * sum(shape.bytes for shape in LAYER)
        cursor = self._gpu.allocate(total)  # all sizes are multiples of 256

        def place(shape: Shape) -> Weights:
            nonlocal cursor
            weights = Weights(cursor, cursor + shape.weight_bytes)
            cursor += shape.bytes
            self._gpu.copy(weights.w, pool.w, shape.weight_bytes)
            self._gpu.copy(weights.scales, pool.scales, shape.scale_bytes)
            return weights

        placed = [{shape: place(shape) for shape in LAYER} for _ in range(layers)]
        head = place(HEAD)
        self._gpu.synchronize()
        return placed, head

    def _upload_activations(self) -> Buffers:
        start = self._gpu.allocate(self._x.nbytes)
        self._gpu.write(start, self._x)
        norm = self._gpu.allocate(self._norm.nbytes)
        self._gpu.write(norm, self._norm)
        hidden = [self._gpu.allocate(2 * ROWS * HEAD.k) for _ in range(3)]
        outputs = {shape: self._gpu.allocate(2 * ROWS * shape.n) for shape in self._shapes}
        return Buffers(start, norm, (hidden[0], hidden[1]), hidden[2], outputs)

    # A variant for a product.

    def _usable(self, variant: Variant, shape: Shape) -> Ready:
        """Compiled, loaded, and right. Raises Unusable, or CudaError where the GPU has failed."""
        key = (variant, shape)
        if key not in self._ready:
            try:
                self._ready[key] = self._checked(variant, shape)
            except (CompileError, CudaError, TimeoutError, Unusable) as error:
                self._ready[key] = Unusable(str(error))
                emit(
                    "gemv shape",
                    shape=shape.name,
                    variant=variant.name,
                    warps=variant.warps,
                    rows=variant.rows,
                    failed=str(error)[:300],
                )
                self._gpu.synchronize()  # fails after an error that no process survives
        ready = self._ready[key]
        if isinstance(ready, Unusable):
            raise ready
        return ready

    def _checked(self, variant: Variant, shape: Shape) -> Ready:
        obstacle = self._obstacle(variant)
        if obstacle is not None:
            raise Unusable(obstacle)
        compiled = self._compiling[variant].result(timeout=60)
        kernel = self._gpu.load(compiled.cubin, "gemv", variant.threads, variant.shared_bytes)
        unchecked = Ready(variant, kernel, 0.0, compiled.registers)
        error = 0.0
        for early in (False, True) if self._early else (False,):
            try:
                error = max(error, self._error(unchecked, shape, early))
            except CudaError:
                if not early:
                    raise
                self._gpu.synchronize()
                self._give_up_early("a launch failed")
        if not error <= check.MOST_ERROR:  # also NaN
            raise Unusable(f"wrong: relative error {error:.1e}")
        return Ready(variant, kernel, error, compiled.registers)

    def _error(self, ready: Ready, shape: Shape, early: bool) -> float:
        """Relative error of some outputs of two launches in a row; NaN if any was not written."""
        rows = ready.variant.rows
        output = self._buffers.outputs[shape]
        y = np.empty((rows, shape.n), np.float16)
        self._gpu.fill(output, 0xFF, y.nbytes)
        weights = self._layers[0].get(shape, self._head)
        buffers = self._buffers
        launch = self._launch(ready, shape, weights, buffers.start, buffers.start, output, early)
        for _ in range(2):
            self._gpu.launch(launch)
        self._gpu.read(y, output)
        if not np.isfinite(y).all():
            return float("nan")
        outputs, expected = self._reference(shape, rows)
        return check.relative_error(y[:, outputs], expected)

    def _reference(self, shape: Shape, rows: int) -> tuple[Array, Array]:
        """Some outputs, the first and last tiles among them, and their values [rows, CHECKED]."""
        key = (shape, rows)
        if key not in self._expected:
            edge = CHECKED // 4
            inner = np.random.default_rng(1).permutation(np.arange(edge, shape.n - edge))
            middle = inner[: CHECKED - 2 * edge]
            outputs = np.concatenate([np.arange(edge), np.sort(middle), np.arange(-edge, 0)])
            w = self._bytes[: shape.weight_bytes].reshape(shape.n, -1)
            scales = self._scales[: shape.scale_bytes // 2].reshape(shape.n, -1)
            residual: Array = np.empty((rows, 0))
            if not shape.norm:
                residual = self._x[: rows * shape.n].reshape(rows, -1)[:, outputs]
            problem = Problem(
                w=w[outputs],
                scales=scales[outputs],
                x=self._x[: rows * shape.k].reshape(rows, -1),
                norm=self._norm,
                residual=residual,
            )
            self._expected[key] = outputs, check.reference(problem, shape.norm)
        return self._expected[key]

    def _launch(
        self,
        ready: Ready,
        shape: Shape,
        weights: Weights,
        x: Pointer,
        residual: Pointer,
        y: Pointer,
        early: bool,
    ) -> Launch:
        pointers = (weights.w, weights.scales, x, self._buffers.norm, residual, y)
        grid = ready.variant.grid(shape.n, self._gpu.multiprocessors)
        return Launch(ready.kernel, grid, pointers, shape.n, early)

    # Times.

    def _milliseconds(self, launches: Sequence[Launch]) -> float:
        """Median of a graph's replays, queued at once so that the host's pace does not count."""
        graph = self._gpu.capture(launches)
        try:
            for _ in range(WARM_UPS):
                self._gpu.replay(graph)
            for start, end in self._events:
                self._gpu.record(start)
                self._gpu.replay(graph)
                self._gpu.record(end)
            self._gpu.synchronize()
            return median(self._gpu.elapsed_ms(start, end) for start, end in self._events)
        finally:
            self._gpu.destroy(graph)

    def _shape_us(self, ready: Ready, shape: Shape, early: bool) -> float:
        """Of one product, from as many in a row as there are layers, each with its own weights."""
        buffers = self._buffers
        output = buffers.outputs[shape]
        launches = [
            self._launch(ready, shape, layer[shape], buffers.start, buffers.start, output, early)
            for layer in self._layers
        ]
        return 1000 * self._milliseconds(launches) / len(launches)

    def _step_launches(self, choice: Choice, early: bool) -> list[Launch]:
        """Products of a decode step, each reading what the one before wrote; no attention."""
        qkv, o, up, down = LAYER
        buffers = self._buffers
        hidden = buffers.start
        launches = []
        for number, layer in enumerate(self._layers):
            after = buffers.hidden[number % 2]
            chain = (
                (qkv, hidden, buffers.outputs[qkv]),
                (o, buffers.outputs[qkv], buffers.between),
                (up, buffers.between, buffers.outputs[up]),
                (down, buffers.outputs[up], after),
            )
            residuals = {o: hidden, down: buffers.between}
            for shape, x, y in chain:
                residual = residuals.get(shape, buffers.start)
                launch = self._launch(choice[shape], shape, layer[shape], x, residual, y, early)
                launches.append(launch)
            hidden = after
        logits = buffers.outputs[HEAD]
        residual = buffers.start  # not read
        head = self._launch(choice[HEAD], HEAD, self._head, hidden, residual, logits, early)
        return [*launches, head]

    def _logits(self, choice: Choice) -> Array:
        logits = np.empty((choice[HEAD].variant.rows, HEAD.n), np.float16)
        self._gpu.read(logits, self._buffers.outputs[HEAD])
        return logits

    def _step(self, choice: Choice, name: str, early: bool, expected: Array | None = None) -> Array:
        """Time and emit a step. Its logits, which must be `expected`."""
        launches = self._step_launches(choice, early)
        self._gpu.fill(self._buffers.outputs[HEAD], 0xFF, 2 * HEAD.n * choice[HEAD].variant.rows)
        ms = self._milliseconds(launches)
        logits = self._logits(choice)
        if expected is not None and logits.tobytes() != expected.tobytes():
            raise Unusable("overlapping launches give other logits")
        size = HEAD.bytes + len(self._layers) * sum(shape.bytes for shape in LAYER)
        emit(
            "gemv step",
            ms=round(ms, 4),
            gb_per_s=round(size / ms / 1e6, 1),
            variant=name,
            early=early,
            rows=choice[HEAD].variant.rows,
            layers=len(self._layers),
            kernels=len(launches),
            finite=bool(np.isfinite(logits).all()),
            variants={shape.name: ready.variant.name for shape, ready in choice.items()},
        )
        rows = choice[HEAD].variant.rows
        if rows == 1 and (self._best is None or ms < self._best[0]):
            self._best = ms, name, early
        return logits

    def _steps(self, choice: Choice, name: str) -> None:
        """Without and with programmatic dependent launch."""
        try:
            logits = self._step(choice, name, early=False)
            if self._early:
                self._step(choice, name, early=True, expected=logits)
        except Unusable as error:
            emit("gemv step", variant=name, failed=str(error))
        except CudaError as error:
            emit("gemv step", variant=name, failed=str(error))
            self._gpu.synchronize()

    def _give_up_early(self, reason: str) -> None:
        self._early = False
        emit("gemv early", failed=reason)

    # What run() does.

    def _first_usable(self, shape: Shape) -> Ready:
        reason = ""
        for variant in kernels.candidates(shape):
            try:
                return self._usable(variant, shape)
            except Unusable as error:
                reason = str(error)
        raise NothingMeasured(f"no variant of the kernel works for {shape.name}: {reason}")

    def _copy(self) -> None:
        """Copies within the device: what the memory gives, read and written bytes together."""
        pointers = []
        try:
            pointers = [self._gpu.allocate(COPY_BYTES) for _ in range(2)]
            self._gpu.fill(pointers[1], 1, COPY_BYTES)
            times = []
            for start, end in self._events[:10]:
                self._gpu.record(start)
                self._gpu.copy(pointers[0], pointers[1], COPY_BYTES)
                self._gpu.record(end)
                times.append(self._gpu.elapsed_ms(start, end))
            emit("copy", gb_per_s=round(2 * COPY_BYTES / median(times) / 1e6, 1))
        except CudaError as error:
            emit("copy", skipped=str(error))
        finally:
            for pointer in pointers:
                self._gpu.free(pointer)

    def _eight_rows(self) -> None:
        """A step of 8 rows of activations, as a draft's verification has."""
        try:
            variants = {shape: kernels.of_rows(shape, ROWS) for shape in self._shapes}
            choice = {shape: self._usable(variants[shape], shape) for shape in self._shapes}
        except Unusable as error:
            emit("gemv step", variant="default", rows=ROWS, failed=str(error))
            return
        self._steps(choice, "default")

    def _sweep(self) -> dict[bool, dict[Shape, list[Timing]]]:
        """Times of all variants of a layer's products, the fastest first; by early starts."""
        best: dict[bool, dict[Shape, list[Timing]]] = {}
        for number in range(max(len(kernels.candidates(shape)) for shape in LAYER)):
            for shape in LAYER:
                if self._late() or number >= len(kernels.candidates(shape)):
                    continue
                try:
                    ready = self._usable(kernels.candidates(shape)[number], shape)
                except Unusable:
                    continue
                for early in (False, True) if self._early else (False,):
                    us = self._shape_time(ready, shape, early)
                    if us is not None:
                        timings = best.setdefault(early, {}).setdefault(shape, [])
                        timings.append(Timing(us, ready))
        if self._late():
            emit("gemv sweep", stopped=f"after {SECONDS:.0f} s")
        for by_shape in best.values():
            for timings in by_shape.values():
                timings.sort(key=lambda timing: timing.us)
        return best

    def _shape_time(self, ready: Ready, shape: Shape, early: bool) -> float | None:
        fields = {
            "shape": shape.name,
            "variant": ready.variant.name,
            "warps": ready.variant.warps,
            "early": early,
        }
        try:
            us = self._shape_us(ready, shape, early)
        except CudaError as error:
            emit("gemv shape", **fields, failed=str(error))
            self._gpu.synchronize()
            return None
        emit(
            "gemv shape",
            **fields,
            us=round(us, 3),
            gb_per_s=round(shape.bytes / us / 1e3, 1),
            error=float(f"{ready.error:.2g}"),
            registers=ready.registers,
        )
        return us

    def _best_step(self, timings: Timings, early: bool) -> None:
        """The fastest of each product, then those that are faster among their neighbours."""
        choice = {shape: timings[shape][0].ready for shape in LAYER}
        choice[HEAD] = self._head_like(choice, default=LAYER[2])
        name = "best per shape"
        try:
            logits = self._step(choice, name, early=False)
            if early:
                self._step(choice, name, early=True, expected=logits)
            tuned = self._tuned(choice, timings, early)
            if tuned != choice:
                logits = self._step(tuned, "tuned in the step", early=False)
                if early:
                    self._step(tuned, "tuned in the step", early=True, expected=logits)
        except Unusable as error:
            emit("gemv step", variant=name, early=early, failed=str(error))
        except CudaError as error:
            emit("gemv step", variant=name, early=early, failed=str(error))
            self._gpu.synchronize()

    def _head_like(self, choice: Choice, default: Shape) -> Ready:
        """The head's kernel is gate+up's: the same kind of product."""
        try:
            return self._usable(choice[default].variant, HEAD)
        except Unusable:
            return self._first_usable(HEAD)

    def _tuned(self, choice: Choice, timings: Timings, early: bool) -> Choice:
        best = dict(choice)
        shortest = self._milliseconds(self._step_launches(best, early))
        for shape in LAYER:
            for timing in timings[shape][1:RETRIED]:
                if self._late():
                    return best
                attempt = best | {shape: timing.ready}
                ms = self._milliseconds(self._step_launches(attempt, early))
                if ms < shortest:
                    shortest = ms
                    best = attempt
        return best

    def _late(self) -> bool:
        return time.monotonic() - self._start > SECONDS
