"""ONNX Runtime's CPU and CUDA providers, over a bundle's graphs.

The CPU provider also runs bundles for TensorRT. It is slow there, and serves to check their graphs.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.embeddings import Embeddings
from pulse_edge.bundle.manifest import PREFILL_GRAPH, VISION_GRAPH
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines import cuda_driver
from pulse_edge.engines.chunk import prefill_chunk
from pulse_edge.engines.cursor import GRAPH_ROWS, Slots
from pulse_edge.engines.engine import Features, Rows, SavedCache, likeliest
from pulse_edge.engines.onnxruntime_library import first_line, load_onnxruntime
from pulse_edge.engines.onnxruntime_prompts import PromptDecoder
from pulse_edge.engines.onnxruntime_providers import HOST, PROVIDERS, Provider, prepare_provider
from pulse_edge.engines.onnxruntime_runs import (
    NO_GRAPH,
    Decoder,
    DecoderRun,
    TowerRun,
)
from pulse_edge.engines.onnxruntime_sessions import SessionFactory
from pulse_edge.engines.onnxruntime_shared import SharedSteps
from pulse_edge.engines.onnxruntime_tensors import DeviceCache, DevicePage, DeviceTable
from pulse_edge.engines.options import FEW_ROWS, EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

Initializers = Callable[[Any], Mapping[str, Any]]  # OrtValues by name, from a session


def open_engine(bundle: Bundle, options: EngineOptions) -> OnnxRuntimeEngine:
    """Open a bundle with ONNX Runtime. `options.device` is `cpu` or `cuda`; see the registry.

    Raises:
        EngineError: the device is not usable here, or a graph cannot be loaded.
    """
    return open_sharing(bundle, options, None)


def open_sharing(
    bundle: Bundle,
    options: EngineOptions,
    initializers: Initializers | None,
) -> OnnxRuntimeEngine:
    """As `open_engine`, with weights of the decoder that somebody else has on the device.

    Args:
        bundle: see `open_engine`.
        options: see `open_engine`.
        initializers: function from the tower's session to the decoder's weights by name. The
            weights must outlive the engine.
    """
    provider = PROVIDERS[options.device]
    prepare_provider(options.device, provider)
    return OnnxRuntimeEngine(bundle, options, provider, initializers)


def profile_projector(
    bundle: Bundle,
    options: EngineOptions,
    pixels: Floats,
    runs: int,
) -> list[float]:
    """Measure the projector, which shares the tower's graph, with ONNX Runtime's profiler.

    Args:
        bundle: for the CPU.
        options: only `threads` is used.
        pixels: float32 [views, 3, side, side].
        runs: how often to encode them.

    Returns:
        Seconds that the projector's kernels took of each run.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "vision")
        sessions = SessionFactory(bundle, options.threads, HOST, standard=False, profile=prefix)
        session = sessions.open(VISION_GRAPH)
        for _ in range(runs):
            session.run(["features"], {"pixels": pixels})
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    taken = [e for e in events if e["name"].endswith("_kernel_time") and "projector" in e["name"]]
    kernels = len(taken) // runs  # per run; the profile lists one run's kernels after the other's
    microseconds = np.array([event["dur"] for event in taken[: runs * kernels]])
    seconds: list[float] = (1e-6 * microseconds.reshape(runs, kernels).sum(axis=1)).tolist()
    return seconds


class OnnxRuntimeEngine(Slots):
    """See `Engine`.

    Bundles for CUDA keep the embedding table and a page's features on the device. A step there
    copies the numbers of its rows and one length to the device, and tokens or logits back. Other
    bundles take embeddings from the host.

    Attributes:
        session: the decoder's.
        cache: keys and values.
        device_table: the embeddings, if they lie on the device.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        provider: Provider,
        initializers: Initializers | None = None,
    ) -> None:
        manifest = bundle.manifest
        text = manifest.model.text
        super().__init__(min(options.context or text.context, text.context), options.slots)
        self._options = options
        self._provider = provider
        standard = manifest.target == "standard"
        sessions = SessionFactory(bundle, options.threads, provider, standard)
        dtype: Any = np.float32 if manifest.precision.io == "fp32" else np.float16
        with ThreadPoolExecutor() as pool:  # a session packs its weights in one thread
            vision = pool.submit(sessions.open, VISION_GRAPH)
            on_host: Future[Embeddings] | None = None
            if manifest.target != "cuda":
                on_host = pool.submit(Embeddings, bundle, dtype)
            if initializers:
                sessions.initializers = initializers(vision.result())
            prompts = None
            if manifest.precision.prefill is not None:
                prompts = pool.submit(sessions.open, PREFILL_GRAPH)
            self.session, captures = sessions.open_decoder()
            self._vision = vision.result()
        self._check_slots(bundle)
        self._initializers = sessions.initializers  # keep alive: the session holds no reference
        self.device_table: DeviceTable | None = None
        self._table: Embeddings | DeviceTable
        if on_host:
            self._table = on_host.result()
        else:
            self._check_gathers(bundle)
            self._table = self.device_table = DeviceTable(bundle, provider)
        self.table_rows = len(self._table)
        self.cache = DeviceCache(
            text,
            text.context if standard else self.capacity,  # "standard" graphs have a fixed length
            np.int8 if manifest.precision.kv_cache == "int8" else dtype,
            provider,
            options.slots,
        )
        self._decoder = Decoder(
            session=self.session,
            provider=provider,
            text=text,
            dtype=dtype,
            capacity=self.capacity,
            cache=self.cache,
            table=self.device_table,
            standard=standard,
            captures=captures,
        )
        self._prompts: PromptDecoder | None = None
        if prompts is not None:
            decoder = replace(self._decoder, session=prompts.result())
            self._prompts = PromptDecoder(decoder, manifest.precision.kv_cache == "int8")
        packed = manifest.precision.decoder not in ("fp32", "fp16")
        self.row_cost = provider.packed_row_cost if packed else provider.row_cost
        self._chunk = _prefill_chunk(options, provider, text, self.capacity)
        self._steps: dict[tuple[int, int], DecoderRun] = {}  # by rows and slot
        self._shared = SharedSteps(
            self._decoder, self.cursors, self.row_cost, lambda slot: self.step_run(1, slot)
        )
        self._towers: dict[tuple[int, ...], TowerRun] = {}  # by the shape of pixels

    def _check_gathers(self, bundle: Bundle) -> None:
        """Check that the decoder takes numbers of rows. Those of old exports take embeddings."""
        if not any(value.name == "rows" for value in self.session.get_inputs()):
            problem = "was exported by an older pulse-edge; export the checkpoint again"
            raise EngineError(f"{bundle.path} {problem}")

    def _check_slots(self, bundle: Bundle) -> None:
        """Check that the decoder takes as many sequences as there are slots."""
        shapes = {value.name: value.shape for value in self.session.get_inputs()}
        if len(self.cursors) > 1 and isinstance(shapes["seqlens_k"][0], int):
            problem = "was exported by an older pulse-edge, and its decoder takes one request"
            remedy = "export the checkpoint again, or use --slots 1"
            raise EngineError(f"{bundle.path} {problem} at a time; {remedy}")

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Features:
        """See `Engine`."""
        # New for each call: `terminate` cannot be undone safely
        options = load_onnxruntime().RunOptions()
        if self._provider.shared:
            # Free the vision tower's arena afterwards: a page is encoded once, and the decoder
            # needs the memory.
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        with self._interruptible(options, cancellation):
            try:
                if self.device_table is not None:
                    return self._encode_there(self.device_table, pixels, options)
                return self._vision.run(["features"], {"pixels": pixels}, options)[0]
            except Exception as error:
                raise EngineError(f"the vision graph failed: {first_line(error)}") from None

    def _encode_there(self, table: DeviceTable, pixels: Floats, options: Any) -> DevicePage:
        page = table.begin(len(pixels))
        tower = self._towers.get(pixels.shape)
        if tower is None:
            tower = TowerRun(self._vision, table, pixels.shape, self._provider)
        tower(pixels, options)
        self._towers[pixels.shape] = tower
        return page

    def _interruptible(
        self, options: Any, cancellation: Cancellation | None
    ) -> AbstractContextManager[None]:
        """Context in which a cancellation stops the run that uses these RunOptions.

        ONNX Runtime looks at `terminate` before each node. On a GPU it would only stop further
        launches. Kernels already launched would go on reading buffers that the next call
        overwrites, so there the cancellation is checked before the run only.
        """
        if cancellation is None:
            return nullcontext()
        if not self._provider.shared:
            cancellation.check()
            return nullcontext()
        return cancellation.interrupting(partial(setattr, options, "terminate", True))

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        """See `Engine`."""
        return self._table.rows(numbers, page)

    def prefill(
        self,
        rows: Rows,
        progress: Progress | None = None,
        slot: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        """See `Engine`."""
        cursor = self.cursor(slot)

        def append(make: Callable[[int], DecoderRun], part: Rows) -> DecoderRun:
            run = make(len(part))
            with (
                cursor.appending(len(part)) as position,
                self._interruptible(run.options, cancellation),
            ):
                run(part, position)
            return run

        with cursor.unchanged_on_failure():
            if self._prompts is not None and len(rows) > FEW_ROWS:
                most = partial(append, partial(self._prompts.run, slot=slot))
                cursor.prefill(rows[:-1], self._chunk, most, progress, cancellation)
                rows, progress = rows[-1:], None
            whole = partial(append, lambda count: DecoderRun(self._decoder, count, 1, slot=slot))
            run = cursor.prefill(rows, self._chunk, whole, progress, cancellation)
            last: Floats = run.logits()[0]
        return last

    def choose(self, rows: Rows, slot: int | Numbers = 0) -> Numbers:
        """See `Engine`."""
        if not isinstance(slot, int) and len(self.cursors) > 1:
            return likeliest(self._step_slots(rows, slot))
        cursor = self.cursor(slot)
        run = self.step_run(len(rows), slot if isinstance(slot, int) else 0)
        with cursor.appending(len(rows)) as position:
            run(rows, position)
            return run.chosen()

    def step(self, rows: Rows, slot: int | Numbers = 0) -> Floats:
        """See `Engine`."""
        if not isinstance(slot, int) and len(self.cursors) > 1:
            return self._step_slots(rows, slot)
        cursor = self.cursor(slot)
        run = self.step_run(len(rows), slot if isinstance(slot, int) else 0)
        with cursor.appending(len(rows)) as position:
            run(rows, position)
            return run.logits()

    def _step_slots(self, rows: Rows, slots: Numbers) -> Floats:
        """`step` for rows of several slots."""
        numbers = [int(slot) for slot in slots]
        cursors = {slot: self.cursor(slot) for slot in numbers}
        if len(numbers) != len(rows):
            raise ValueError(f"{len(numbers)} slots for {len(rows)} rows; name one for each row")
        if len(cursors) == len(rows):
            return self._shared(rows, numbers)
        logits = np.empty((len(rows), self._decoder.text.vocab), np.float32)
        with ExitStack() as stack:  # all of it or nothing
            for cursor in cursors.values():
                stack.enter_context(cursor.unchanged_on_failure())
            for slot in cursors:
                chosen = [row for row, of in enumerate(numbers) if of == slot]
                logits[chosen] = self.step(rows[chosen], slot)
        return logits

    def step_run(self, rows: int, slot: int = 0) -> DecoderRun:
        """The bound run for a decode step of `rows` rows of a slot.

        Runs of up to `GRAPH_ROWS` rows are kept for the next step.
        """
        if rows > GRAPH_ROWS:
            return DecoderRun(self._decoder, rows, rows, slot=slot)
        if (rows, slot) not in self._steps:
            graph = str(rows) if self._decoder.captures else NO_GRAPH
            self._steps[rows, slot] = DecoderRun(self._decoder, rows, rows, graph, slot)
        return self._steps[rows, slot]

    def reset(self, slot: int = 0) -> None:
        """See `Engine`."""
        self.rewind(0, slot)
        self.cache.clear()

    def saved_size(self, length: int) -> int:
        """See `Engine`."""
        return self.cache.saved_size(length)

    def save(self, length: int, slot: int = 0) -> SavedCache:
        """See `Engine`."""
        return SavedCache(self.saved_size(length), self.cache.save(length, slot))

    def restore(self, saved: SavedCache, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        self.rewind(0, slot)
        self.cache.restore(saved.content, length, slot)
        self.cursors[slot].advance(length)

    def copy(self, length: int, source: int, slot: int) -> None:
        """See `Engine`."""
        if length > self.cursor(source).length:
            raise ValueError(f"cannot copy {length} positions of slot {source}: it has fewer")
        self.rewind(0, slot)
        self.cache.copy(length, source, slot)
        self.cursors[slot].advance(length)

    def cached(self, slot: int = 0) -> dict[str, NDArray[Any]]:
        """What a slot holds, on the CPU.

        Returns:
            [1, kv heads, length, head size] by "layer.key" and "layer.value".
        """
        return self.cache.read(self.cursors[slot].length, slot)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {
            "engine": "onnxruntime",
            "engine_version": load_onnxruntime().__version__,
            "device": self._options.device,
            "provider": self._provider.name,
            "threads": self._options.threads,
            "context": self.capacity,
            "prefill_chunk": self._chunk,
            **({"slots": len(self.cursors)} if len(self.cursors) > 1 else {}),
            **({} if self._provider.shared else {"cuda_graphs": self._decoder.captures}),
        }


def _prefill_chunk(
    options: EngineOptions,
    provider: Provider,
    text: TextSpec,
    capacity: int,
) -> int:
    """Prompt tokens per run.

    The first of: the caller's option, the provider's default, what free GPU memory allows.
    """
    if options.prefill_chunk is not None:
        return options.prefill_chunk
    if provider.prefill_chunk is not None:
        return provider.prefill_chunk
    memory = cuda_driver.gpu_memory()
    return prefill_chunk(memory[0] if memory else None, text, capacity)
