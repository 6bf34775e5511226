"""TensorRT and TensorRT-RTX: the plans of export/engine.py on an NVIDIA GPU.

All memory is allocated once, and everything runs on one stream: the vision engine, the decoder, and the copies from and
to pinned memory. A step's rows of embeddings go there from the host's table: 8 kB of fp16 in the same graph as its
position, where a gather on the device would need a table of 0.26 GB there.

`tensorrt` 10.15 to 11.1 have one Python API for what is used here (python/src/infer/pyCore.cpp at the tags v10.15,
v10.16, v11.0 and v11.1 of NVIDIA/TensorRT); 10.3 to 10.14 lack aliased inputs and IKVCacheUpdateLayer. RTX differs in
`_Contexts.context` and `_Context.capturable` (docstrings of tensorrt_rtx 1.7; "Working with Runtime Cache" and "Working
with CUDA graphs" in its guide). Contracts: NvInferRuntime.h, IExecutionContext.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.embeddings import HostTable
from pulse_edge.bundle.plans import (
    DECODER_PLAN,
    VISION_PLAN,
    PlanIndex,
    PlanKey,
    error_log,
    load_library,
    open_plans,
    plan_directory,
    plan_size,
)
from pulse_edge.engines.cuda_runtime import Device
from pulse_edge.engines.engine import likeliest
from pulse_edge.engines.options import EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

ALIGNMENT = 256  # of the addresses of tensors
# Of `Engine.row_cost`, from the bytes that a step reads; not measured. Steps wait for weights and cache, which further
# rows share; but a step of several rows copies the cache first, where one of a single row reads it in place. That is
# paid once a draft, here by each of its rows, as if there were 8.
ROW_COST, COPY_ROWS = 0.03, 8


def open_engine(bundle: Bundle, options: EngineOptions) -> TensorRTEngine:
    """Raises `EngineError` without a GPU or library, and for plans that are missing, stale or altered."""
    if options.device not in ("auto", "cuda"):
        raise EngineError(
            f"{bundle.path} was exported for TensorRT; its device is auto, cuda or cpu, not {options.device!r}"
        )
    stack = ExitStack()  # the engine's, which puts more on it as it runs
    try:
        device = Device(stack)
        library, index = _choose_plans(bundle, device.capability)
        engine = TensorRTEngine(bundle, options, device, library, index)
    except BaseException:
        stack.close()
        raise
    weakref.finalize(engine, stack.close)
    return engine


def _choose_plans(bundle: Bundle, capability: int) -> tuple[Any, PlanIndex]:
    """The library that is installed and its plans; where both are, the first that has some."""
    problems = []
    for name in ("tensorrt", "tensorrt_rtx"):
        try:
            library = load_library(name)
            return library, open_plans(bundle, PlanKey(name, library.__version__, capability))
        except EngineError as error:
            problems.append(str(error))
    raise EngineError("; ".join(problems))


class TensorRTEngine:
    """See `engines.engine.Engine`."""

    def __init__(self, bundle: Bundle, options: EngineOptions, device: Device, library: Any, index: PlanIndex) -> None:
        model = bundle.manifest.model
        self._text, self._index, self._device = model.text, index, device
        self.capacity = min(options.context or self._text.context, self._text.context)
        self.length = 0
        self._table = HostTable(bundle, np.float16)
        self.table_rows = len(self._table)
        self._chunk = min(options.prefill_chunk or index.prefill_rows, index.prefill_rows)
        self._load = load = _Contexts(bundle, device, library, index)
        side, patches = model.vision.image_size, model.vision.grid**2
        self._pixels = device.buffer((index.views, 3, side, side), np.float32)
        self._features = device.buffer((index.views, patches, self._text.hidden), np.float32)
        self._rows = _Rows(device, index, self._text.hidden, self._text.vocab)
        vision = {"pixels": self._pixels.address, "features": self._features.address}
        self._addresses = self._rows.addresses | self._allocate_cache(load.decoder)
        cache, weights = device.used["cache"], plan_size(index, DECODER_PLAN)
        copied = 2 * cache if index.step_profile != index.several_profile else 0
        self.row_cost = ROW_COST + copied / (weights + cache) / COPY_ROWS
        self._vision = load.context(load.vision, 0, vision)
        self._prefill = _Run(load.context(load.decoder, 0, self._addresses), self._rows)
        self._steps: dict[int, _Run] = {}  # by rows, so that each keeps its shape and its graph
        self._stepper(1)  # every answer needs it: where there is no memory for it, that is said now
        device.synchronize()

    def _stepper(self, rows: int) -> _Run:
        """Drafts differ in length from step to step: a context for all of them would be captured over and over."""
        if rows not in self._steps:
            profile = self._index.step_profile if rows == 1 else self._index.several_profile
            context = self._load.context(self._load.decoder, profile, self._addresses, fixed=True)
            self._steps[rows] = _Run(context, self._rows)
        return self._steps[rows]

    def _allocate_cache(self, decoder: Any) -> dict[str, int]:
        """One block with every layer's keys and values, of zeros: what is masked is still multiplied, with 0.

        An update's input and output are one address. -> addresses by tensor
        """
        text = self._text
        size = 2 * text.kv_heads * text.context * text.head_size  # [1, heads, context, head_size] in fp16
        each = -(-size // ALIGNMENT) * ALIGNMENT
        remedy = f"it holds {text.context} tokens: export again with a lower --context"
        self._cache_size = 2 * text.layers * each
        self._cache = start = self._device.allocate(self._cache_size, "cache", remedy)
        addresses = {}
        for at, name in enumerate(f"{layer}.{part}" for layer in range(text.layers) for part in ("key", "value")):
            if decoder.get_aliased_input_tensor(f"present.{name}") != f"past.{name}":
                raise EngineError(f"{DECODER_PLAN} does not update past.{name} in place; run pulse-edge build again")
            addresses[f"past.{name}"] = addresses[f"present.{name}"] = start + at * each
        return addresses

    def encode(self, pixels: Floats) -> Floats:
        views, shape = len(pixels), self._pixels.host.shape
        if pixels.shape[1:] != shape[1:] or not 1 <= views <= shape[0]:
            raise EngineError(f"pixels are {list(pixels.shape)}, but the plan takes up to {list(shape)}")
        self._pixels.host[:views] = pixels
        with self._finished():
            self._vision.shape("pixels", pixels.shape)
            self._pixels.upload(views)
            self._vision.enqueue()
            self._features.download(views)
        features: Floats = self._features.host[:views].copy()
        return features

    @contextmanager
    def _finished(self) -> Iterator[None]:
        """What was put on the stream inside is done afterwards, Ctrl-C or not: it may still read what the next call
        overwrites."""
        try:
            yield
            self._device.synchronize()
        except BaseException:
            with suppress(EngineError):
                self._device.synchronize()
            raise

    def rows(self, numbers: Numbers, page: Floats | None = None) -> Floats:
        return self._table.rows(numbers, page)

    def prefill(self, embeds: Floats, progress: Progress | None = None) -> Floats:
        start = self.length
        if progress:
            progress("prefill", 0, len(embeds))
        try:
            for at in range(0, len(embeds), self._chunk):
                part = embeds[at : at + self._chunk]
                self._append(self._prefill, part, 1, capture=False)
                if progress:
                    progress("prefill", len(part), len(embeds))
        except BaseException:
            self.length = start
            raise
        last: Floats = self._rows.logits.host[0]
        return last

    def choose(self, embeds: Floats) -> Numbers:
        return likeliest(self.step(embeds))

    def step(self, embeds: Floats) -> Floats:
        rows, most = len(embeds), self._index.logit_rows
        if rows > most:
            return self._steps_of(most, embeds)
        self._append(self._stepper(rows), embeds, rows, capture=True)
        logits: Floats = self._rows.logits.host[:rows]
        return logits

    def _steps_of(self, most: int, embeds: Floats) -> Floats:
        """As many steps as it takes: drafts fit one (export.engine.LOGIT_ROWS), whole prompts do not."""
        start = self.length
        try:
            return np.concatenate([self.step(embeds[at : at + most]).copy() for at in range(0, len(embeds), most)])
        except BaseException:
            self.length = start
            raise

    def _append(self, run: _Run, embeds: Floats, wanted: int, capture: bool) -> None:
        total = self.length + len(embeds)
        if total > self.capacity:  # TensorRT would write beyond the cache
            raise EngineError(f"{total} tokens do not fit a cache of {self.capacity}")
        self._rows.embeds.host[: len(embeds)] = embeds
        self._rows.position.host[0] = self.length
        with self._finished():
            run(len(embeds), wanted, capture)
        self.length = total

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind a cache of {self.length} to {length}")
        self.length = length

    def reset(self) -> None:
        with self._finished():
            self._device.cuda("cudaMemsetAsync", self._cache, 0, self._cache_size, self._device.stream)
        self.length = 0

    def describe(self) -> dict[str, Any]:
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
            "device_memory": dict(self._device.used),
        }


class _Rows:
    """What goes into the decoder and comes out, besides the cache: shared by its contexts, which take turns."""

    def __init__(self, device: Device, index: PlanIndex, hidden: int, vocab: int) -> None:
        self.hidden = hidden
        self.embeds = device.buffer((max(index.prefill_rows, index.logit_rows), hidden), np.float16)
        self.position = device.buffer((1,), np.int64)
        self.wanted = device.buffer((index.logit_rows,), np.int64)
        self.logits = device.buffer((index.logit_rows, vocab), np.float32)
        self.addresses = {
            "inputs_embeds": self.embeds.address,
            "position": self.position.address,
            "logit_rows": self.wanted.address,
            "logits": self.logits.address,
        }


class _Run:
    """One of the decoder's contexts. From the second run of a shape on, a run is one CUDA graph if wished."""

    def __init__(self, context: _Context, rows: _Rows) -> None:
        self._context, self._rows = context, rows
        self._shape = (0, 0)

    def __call__(self, rows: int, wanted: int, capture: bool) -> None:
        """Put a run of `rows` new positions, with logits of the last `wanted`, on the stream."""
        context, here = self._context, self._rows
        here.wanted.host[:wanted] = range(rows - wanted, rows)
        if (rows, wanted) != self._shape:
            self._shape = (0, 0)
            context.drop_graph()
            context.shape("inputs_embeds", (1, rows, here.hidden))
            context.shape("logit_rows", (wanted,))
            # Plainly: the first run after a change of shapes does what TensorRT has put off until then.
            self._issue(rows, wanted)
            self._shape = rows, wanted
        elif capture and context.capturable:
            context.launch(lambda: self._issue(rows, wanted))
        else:
            self._issue(rows, wanted)

    def _issue(self, rows: int, wanted: int) -> None:
        """What is copied is read when the stream gets there: in a graph, at each launch."""
        here = self._rows
        here.embeds.upload(rows)
        here.position.upload(1)
        here.wanted.upload(wanted)
        self._context.enqueue()
        here.logits.download(wanted)


class _Contexts:
    """Both plans' engines, and execution contexts of them, which share one block for activations: they take turns."""

    def __init__(self, bundle: Bundle, device: Device, library: Any, index: PlanIndex) -> None:
        self._device, self._trt, self._log = device, library, error_log(library)
        self._kernels: Any = None
        self._runtime = library.Runtime(self._log)
        root = plan_directory(bundle, index.key)
        self.vision, self.decoder = (self._open(root / plan) for plan in (VISION_PLAN, DECODER_PLAN))
        device.stack.callback(self._close)  # after the contexts, which come later
        self._size = max(1, *(int(engine.device_memory_size_v2) for engine in (self.vision, self.decoder)))
        remedy = f"build again with --prefill-rows under {index.prefill_rows}"
        self._scratch = device.allocate(self._size, "activations", remedy)

    def _open(self, plan: Path) -> Any:
        with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            engine = self._runtime.deserialize_cuda_engine(content)  # no second copy in memory, which a Jetson shares
            if self._device.cuda.integrated() and hasattr(os, "posix_fadvise"):
                # Nor one in the file cache, which CUDA on a Jetson takes for used.
                content.madvise(mmap.MADV_DONTNEED)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        size = plan.stat().st_size
        if engine is None:
            raise _failed(self._device, self._log, f"deserialize_cuda_engine({plan}), {size / 1e9:.2f} GB,")
        used = self._device.used  # a plan is its weights, but for a few MB
        used["plans"] = used.get("plans", 0) + size
        return engine

    def _close(self) -> None:
        self.vision = self.decoder = self._kernels = self._runtime = None

    def context(self, engine: Any, profile: int, addresses: dict[str, int], fixed: bool = False) -> _Context:
        """fixed: its shapes never change. RTX compiles kernels for a shape it meets, in the background; a graph must
        not be captured before that is done, so these contexts wait for it."""
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            if fixed:
                eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
                config.dynamic_shapes_kernel_specialization_strategy = eager
            if self._kernels is None:  # what one context has compiled, the others need not
                self._kernels = config.create_runtime_cache()
            if not config.set_runtime_cache(self._kernels):
                raise _failed(self._device, self._log, "set_runtime_cache")
            made = engine.create_execution_context(config)
        else:
            made = engine.create_execution_context(strategy)
        if made is None:
            raise _failed(self._device, self._log, "create_execution_context")
        context = _Context(self._device, self._log, made)
        self._device.stack.callback(context.close)
        context("set_optimization_profile_async", profile, int(self._device.stream))
        context("set_device_memory", self._scratch, self._size)
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            context("set_tensor_address", name, addresses[name])
        return context


class _Context:
    """An execution context, and its latest CUDA graph."""

    def __init__(self, device: Device, log: Any, context: Any) -> None:
        self._device, self._log, self._context = device, log, context
        self._graph: Any = None

    def __call__(self, method: str, *args: Any) -> None:
        """Call a method that returns False, or raises `RuntimeError`, where it fails; the bindings do either."""
        said = ""
        try:
            if getattr(self._context, method)(*args) is not False:
                return
        except RuntimeError as error:
            said = str(error)
        raise _failed(self._device, self._log, f"{method}({', '.join(map(repr, args))})", said)

    def shape(self, name: str, shape: tuple[int, ...]) -> None:
        self("set_input_shape", name, shape)

    def enqueue(self) -> None:
        self("execute_async_v3", int(self._device.stream))

    @property
    def capturable(self) -> bool:
        """RTX says; TensorRT's runs are, where shapes do not depend on data, and none here do."""
        if self._graph is not None:
            return True
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(int(self._device.stream)))

    def launch(self, issue: Callable[[], None]) -> None:
        """Run what `issue` puts on the stream; it is asked only for the first launch after `drop_graph`."""
        if self._graph is None:
            self._graph = self._device.capture(issue)
        self._device.cuda("cudaGraphLaunch", self._graph, self._device.stream)

    def drop_graph(self) -> None:
        if self._graph is not None:
            graph, self._graph = self._graph, None
            self._device.release("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        self.drop_graph()
        self._context = None


def _failed(device: Device, log: Any, call: str, raised: str = "") -> EngineError:
    """What TensorRT said about a call. It allocates on its own account, too: where that fails, what to lower."""
    said = " ".join([*log.complaints[-3:], raised]).strip() or "it did not say why"
    log.complaints.clear()
    message = f"TensorRT: {call} failed ({said})"
    if "memory" in said.lower() and "illegal memory" not in said.lower():
        remedy = "close other programs, export with a lower --context, or with fewer bits"
        return EngineError(f"{message}: {device.memory()}; {remedy}")
    return EngineError(message)
