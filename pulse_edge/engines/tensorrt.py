"""TensorRT and TensorRT-RTX: the plans of a bundle on an NVIDIA GPU.

All memory is allocated once, and everything runs on one stream: the vision engine, the decoder, and
the copies from and to pinned memory. A step's rows of embeddings come from the host's table: 8 kB
of fp16 in the same graph as its position, while a gather on the device would need a table of
0.26 GB there.

`tensorrt` 10.15 to 11.1 have one Python API for what is used here (python/src/infer/pyCore.cpp at
the tags v10.15, v10.16, v11.0 and v11.1 of NVIDIA/TensorRT); 10.3 to 10.14 lack aliased inputs and
IKVCacheUpdateLayer.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.embeddings import Embeddings
from pulse_edge.bundle.plans import (
    DECODER_PLAN,
    OpenedPlans,
    PlanKey,
    load_library,
    open_plans,
    plan_size,
)
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.cuda_runtime import CudaDevice
from pulse_edge.engines.cursor import Cursor, SingleSlot
from pulse_edge.engines.engine import likeliest
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.tensorrt_contexts import PlanContexts
from pulse_edge.engines.tensorrt_runs import PlanBuffers, PlanRun
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

ALIGNMENT = 256  # of the addresses of tensors, in bytes
# Of `Engine.row_cost`; estimated from the bytes that a step reads, not measured. Further rows share
# the weights and the cache that a step waits for. A single row reads the
# cache in place, but a step of several rows copies it first. The copy is paid once per draft; here
# each row pays its part of it, as if there were `COPY_ROWS`.
ROW_COST = 0.03
COPY_ROWS = 8


def open_engine(bundle: Bundle, options: EngineOptions) -> TensorRTEngine:
    """Open a bundle's plans on the current GPU.

    Raises:
        EngineError: there is no GPU or library, or the plans are missing, stale or altered.
    """
    stack = ExitStack()  # the engine's, which adds to it as it runs
    try:
        device = CudaDevice(stack)
        library, plans = _choose_plans(bundle, device.capability)
        engine = TensorRTEngine(bundle, options, device, library, plans)
    except BaseException:
        stack.close()
        raise
    weakref.finalize(engine, stack.close)
    return engine


def _choose_plans(bundle: Bundle, capability: int) -> tuple[Any, OpenedPlans]:
    """The installed library and its plans; if both are installed, the first that has plans."""
    problems = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            library = load_library(name)
            return library, open_plans(bundle, PlanKey(name, library.__version__, capability))
        except EngineError as error:
            problems.append(str(error))
    raise EngineError("; ".join(problems))


class TensorRTEngine(SingleSlot):
    """See `Engine`.

    Attributes:
        device: the GPU.
        buffers: of the decoder.
        cache: address and bytes of all keys and values.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        device: CudaDevice,
        library: Any,
        plans: OpenedPlans,
    ) -> None:
        index = plans.index
        model = bundle.manifest.model
        text = model.text
        super().__init__(min(options.context or text.context, text.context))
        self._text = text
        self._index = index
        self.device = device
        # On a Jetson the host's memory is the GPU's, and the table would take 262 MB of it.
        self._table = Embeddings(bundle, np.float16, copied=not device.cuda.integrated())
        self.table_rows = len(self._table)
        self._chunk = min(options.prefill_chunk or index.prefill_rows, index.prefill_rows)
        self._contexts = PlanContexts(plans, device, library)
        side = model.vision.image_size
        patches = model.vision.grid**2
        self._pixels = device.buffer((index.views, 3, side, side), np.float32)
        self._features = device.buffer((index.views, patches, text.hidden), np.float32)
        self.buffers = PlanBuffers(device, index, text.hidden, text.vocab)
        self._addresses = self.buffers.addresses | self._allocate_cache()
        self.row_cost = self._estimate_row_cost()
        self._vision = self._contexts.context(
            self._contexts.vision,
            0,
            {"pixels": self._pixels.address, "features": self._features.address},
        )
        prefill = self._contexts.context(self._contexts.decoder, 0, self._addresses)
        self._prefill = PlanRun(prefill, self.buffers)
        self._steps: dict[int, PlanRun] = {}  # by rows, so that each keeps its shape and its graph
        self.step_run(1)  # every answer needs it, so a lack of memory for it shows now
        device.synchronize()

    def _allocate_cache(self) -> dict[str, int]:
        """Allocate one block for every layer's keys and values.

        It is of zeros, because masked values are multiplied with 0.

        Returns:
            Addresses by tensor. An update's input and output have the same.
        """
        text = self._text
        size = 2 * text.kv_heads * text.context * text.head_size  # [1, heads, context, size], fp16
        aligned = -(-size // ALIGNMENT) * ALIGNMENT
        remedy = f"it holds {text.context} tokens: export again with a lower --context"
        total = 2 * text.layers * aligned
        start = self.device.allocate(total, "cache", remedy)
        self.cache = start, total
        decoder = self._contexts.decoder
        names = [f"{layer}.{part}" for layer in range(text.layers) for part in ("key", "value")]
        addresses = {}
        for number, name in enumerate(names):
            if decoder.get_aliased_input_tensor(f"present.{name}") != f"past.{name}":
                problem = f"{DECODER_PLAN} does not update past.{name} in place"
                raise EngineError(f"{problem}; run pulse-edge build again")
            address = start + number * aligned
            addresses[f"past.{name}"] = address
            addresses[f"present.{name}"] = address
        return addresses

    def _estimate_row_cost(self) -> float:
        cache = self.device.used["cache"]
        weights = plan_size(self._index, DECODER_PLAN)
        copies = self._index.step_profile != self._index.several_profile
        copied = 2 * cache if copies else 0
        return ROW_COST + copied / (weights + cache) / COPY_ROWS

    def step_run(self, rows: int) -> PlanRun:
        """A run for steps of `rows` rows, which is kept.

        Drafts differ in length from step to step, and a context that changed its shapes would have
        to be captured again each time.
        """
        if rows not in self._steps:
            index = self._index
            profile = index.step_profile if rows == 1 else index.several_profile
            decoder = self._contexts.decoder
            context = self._contexts.context(decoder, profile, self._addresses, fixed=True)
            self._steps[rows] = PlanRun(context, self.buffers)
        return self._steps[rows]

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Floats:
        """See `Engine`. The features lie on the host and stay valid.

        TensorRT cannot end a run that was put on the stream, so a cancellation counts before it.
        """
        if cancellation:
            cancellation.check()
        views = len(pixels)
        shape = self._pixels.host.shape
        if pixels.shape[1:] != shape[1:] or not 1 <= views <= shape[0]:
            problem = f"pixels are {list(pixels.shape)}"
            raise EngineError(f"{problem}, but the plan takes up to {list(shape)}")
        self._pixels.host[:views] = pixels
        with self._finishing():
            self._vision.shape("pixels", pixels.shape)
            self._pixels.upload(views)
            self._vision.enqueue()
            self._features.download(views)
        features: Floats = self._features.host[:views].copy()
        return features

    @contextmanager
    def _finishing(self) -> Iterator[None]:
        """Wait for the stream on exit, also after an exception.

        Queued copies still read host buffers that the next call overwrites.
        """
        try:
            yield
            self.device.synchronize()
        except BaseException:
            with suppress(EngineError):
                self.device.synchronize()
            raise

    def rows(self, numbers: Numbers, page: Floats | None = None) -> Floats:
        """See `Engine`."""
        return self._table.rows(numbers, page)

    def prefill(
        self,
        rows: Floats,
        progress: Progress | None = None,
        slot: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        """See `Engine`. A cancellation counts between chunks."""
        cursor = self.cursor(slot)

        def append(part: Floats) -> None:
            self._append(cursor, self._prefill, part, 1, capture=False)

        cursor.prefill(rows, self._chunk, append, progress, cancellation)
        last: Floats = self.buffers.logits.host[0]
        return last

    def choose(self, rows: Floats, slot: int | Numbers = 0) -> Numbers:
        """See `Engine`."""
        return likeliest(self.step(rows, slot))

    def step(self, rows: Floats, slot: int | Numbers = 0) -> Floats:
        """See `Engine`."""
        cursor = self.cursor(slot)
        count = len(rows)
        most = self._index.logit_rows
        if count > most:
            # Drafts fit one run of the plan (LOGIT_ROWS of its builder), whole prompts do not.
            with cursor.unchanged_on_failure():
                parts = [rows[start : start + most] for start in range(0, count, most)]
                return np.concatenate([self.step(part).copy() for part in parts])
        self._append(cursor, self.step_run(count), rows, count, capture=True)
        logits: Floats = self.buffers.logits.host[:count]
        return logits

    def _append(
        self,
        cursor: Cursor,
        run: PlanRun,
        rows: Floats,
        logit_rows: int,
        capture: bool,
    ) -> None:
        with cursor.appending(len(rows)) as position:
            self.buffers.embeds.host[: len(rows)] = rows
            self.buffers.position.host[0] = position
            with self._finishing():
                run(len(rows), logit_rows, capture)

    def reset(self, slot: int = 0) -> None:
        """See `Engine`."""
        cursor = self.cursor(slot)
        start, size = self.cache
        with self._finishing():
            self.device.cuda("cudaMemsetAsync", start, 0, size, self.device.stream)
        cursor.rewind(0)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        key = self._index.key
        return {
            "engine": key.library,
            "engine_version": key.version,
            "device": "cuda",
            "provider": f"sm{key.capability}",
            "threads": 0,
            "context": self.capacity,
            "prefill_chunk": self._chunk,
            "plans": self._index.seal,
            "device_memory": dict(self.device.used),
        }
