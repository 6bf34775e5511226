"""OpenVINO's CPU plugin, over the graphs of a bundle for CPUs.

It runs the same `decoder.onnx` and `vision.onnx` as ONNX Runtime, with a cache of the plugin's own.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.embeddings import Embeddings
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH, PrecisionInfo
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.cursor import SingleSlot
from pulse_edge.engines.engine import Features, Rows, likeliest
from pulse_edge.engines.openvino_graph import stateful_decoder
from pulse_edge.engines.openvino_library import load_openvino, openvino_reason, openvino_version
from pulse_edge.engines.openvino_requests import (
    EXECUTION,
    StoppableRequest,
    compiled,
    native_type,
)
from pulse_edge.engines.openvino_rows import CachedRows, rows_together
from pulse_edge.engines.openvino_weights import CheckedModel, UnchangedFiles
from pulse_edge.engines.options import PREFILL_CHUNK, EngineOptions
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

FULL = "f32"  # the plugin's name of float32
# The plugin's bytes have a scale and a zero point for each row of a head. The bundle's own scales,
# one a channel, are not used.
BYTES = "u8"
CACHES = ("fp32", "int8")  # of `PrecisionInfo.kv_cache`
ROW_COST = 0.4  # as ONNX Runtime's on the CPU: both multiply row by row at these sizes
# Rows of the runs that pack the weights while a bundle is loaded. One row and several may run
# different kernels.
PACKING_ROWS = (1, 32)
BEAM = np.zeros(1, np.int32)


def open_engine(bundle: Bundle, options: EngineOptions) -> OpenVinoEngine:
    """Open a bundle for CPUs with OpenVINO. `options.device` is `cpu`.

    Raises:
        EngineError: OpenVINO is missing, or cannot run the bundle.
    """
    if bundle.manifest.precision.prefill is not None:
        raise EngineError(
            f"{bundle.path} has weights of its own for prompts, which engine openvino does not "
            "use; use --engine onnxruntime, or export the checkpoint without --prefill"
        )
    if bundle.manifest.precision.kv_cache not in CACHES:
        raise EngineError(
            f"{bundle.path} has a cache of {bundle.manifest.precision.kv_cache}, and engine "
            f"openvino runs {' and '.join(CACHES)}; use --engine onnxruntime"
        )
    load_openvino()
    return OpenVinoEngine(bundle, options)


def decoder_type(precision: PrecisionInfo, text: TextSpec) -> str:
    """The float type that a decoder runs in, in the plugin's words.

    Quantized weights are multiplied in bfloat16 where the CPU is built for it: that is both faster
    and nearer to float32 than rounding activations to bytes, which is done elsewhere. OpenVINO
    2026.4.1 crashes on them if the last block of a row is not full.
    """
    columns = (text.hidden, text.heads * text.head_size, text.ffn)
    full = precision.block_size and not any(n % precision.block_size for n in columns)
    return native_type() if precision.decoder != "fp32" and full else FULL


class OpenVinoEngine(SingleSlot):
    """See `Engine`.

    The cache lies in the plugin. It grows as it fills, and takes no more than `capacity` rows and
    the forgotten ones of `CachedRows`.

    Attributes:
        decoder: runs of the decoder.
        cached: which rows the plugin's cache holds.
    """

    row_cost = ROW_COST

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        manifest = bundle.manifest
        text = manifest.model.text
        super().__init__(min(options.context or text.context, text.context))
        self._text = text
        self._options = options
        precision = manifest.precision
        self._execution = decoder_type(precision, text)
        self._cache_type = BYTES if precision.kv_cache == "int8" else self._execution
        tower_type = FULL if precision.vision == "fp32" else native_type()
        chunk = options.prefill_chunk
        self._chunk = PREFILL_CHUNK if chunk is None else chunk
        self.cached = CachedRows(self.capacity)
        self._intact = True  # the plugin's cache holds the rows that `cached` says
        with bundle.files.steady(bundle.weights), ExitStack() as stack:
            self._table = Embeddings(bundle, np.float32)
            self.table_rows = len(self._table)
            weights = self._checked(bundle, DECODER_GRAPH, stack)
            model = stateful_decoder(weights.model, text)
            settings = {EXECUTION: self._execution, "KV_CACHE_PRECISION": self._cache_type}
            if precision.block_size:  # activations are rounded in blocks as long as the weights'
                settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(precision.block_size)
            self.decoder = self._request(model, weights, settings)
            weights = self._checked(bundle, VISION_GRAPH, stack)
            self._tower = self._request(weights.model, weights, {EXECUTION: tower_type})
            self._files = UnchangedFiles(bundle)
            self._pack(manifest.model.vision.image_size)

    def _checked(self, bundle: Bundle, graph: str, stack: ExitStack) -> CheckedModel:
        weights = CheckedModel(bundle, graph)
        stack.enter_context(weights.trimmed())
        return weights

    def _request(
        self, model: Any, weights: CheckedModel, settings: dict[str, str]
    ) -> StoppableRequest:
        weights.model = None  # compiling needs the memory of what was replaced in it
        return StoppableRequest(compiled(model, self._options.threads, settings), weights.arrays)

    def _pack(self, side: int) -> None:
        """Let the plugin pack the weights, which it does in a model's first run.

        Without it the plugin would read the mapped files after the load.
        """
        for count in PACKING_ROWS:
            rows = np.zeros((min(count, self.capacity), self._text.hidden), np.float32)
            self._run(rows, 0, len(rows))
        self.encode(np.zeros((1, 3, side, side), np.float32))

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Features:
        """See `Engine`."""
        try:
            return self._tower.run([np.ascontiguousarray(pixels, np.float32)], cancellation)
        except Exception as error:
            raise EngineError(f"the vision graph failed: {openvino_reason(error)}") from None
        finally:
            self._tower.trim()  # a page is encoded once, and the decoder needs the memory

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

        def append(part: Rows) -> Floats:
            with cursor.appending(len(part)) as position:
                return self._run(part, position, 1, cancellation)

        self._files.check()
        logits = cursor.prefill(rows, self._chunk, append, progress, cancellation)
        last: Floats = logits[0]
        return last

    def choose(self, rows: Rows, slot: int | Numbers = 0) -> Numbers:
        """See `Engine`."""
        return likeliest(self.step(rows, slot))

    def step(self, rows: Rows, slot: int | Numbers = 0) -> Floats:
        """See `Engine`."""
        with self.cursor(slot).appending(len(rows)) as position:
            return self._run(rows, position, len(rows))

    def _run(
        self,
        rows: Rows,
        position: int,
        logit_rows: int,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        """Append rows behind the first `position` ones; logits of the last `logit_rows` of them."""
        if rows.ndim != 2 or rows.shape[1] != self._text.hidden:
            raise ValueError(f"rows are of shape {rows.shape}; `Engine.rows` makes those that fit")
        count = len(rows)
        self._forget(position)  # what a call wrote that failed
        self._make_room(count)
        inputs = [
            np.ascontiguousarray(rows[None], np.float32),
            np.arange(count - logit_rows, count),
            np.arange(position, position + count),
            self.cached.mask(count),
            BEAM,
        ]
        self._intact = False
        try:
            logits = self.decoder.run(inputs, cancellation)
        except Exception as error:
            problem = f"the decoder graph failed at {position + count} tokens"
            raise EngineError(f"{problem}: {openvino_reason(error)}") from None
        self.cached.append(count)
        self._intact = True
        return logits

    def _forget(self, length: int) -> None:
        """Keep the first `length` rows of the sequence, which are there."""
        if self.cached.length < length:
            raise EngineError("the cache was lost when a call was interrupted; ask again")
        if length:
            self.cached.forget(length)
        else:
            self.decoder.forget()
            self.cached.together(0)
            self._intact = True

    def _make_room(self, count: int) -> None:
        """Copy the sequence's rows together if a run failed amid, or too many are forgotten."""
        full = self.cached.total + count > self.cached.most
        if self._intact and not full and self.cached.forgotten <= self.cached.most_forgotten:
            return
        kept = self.cached.kept()
        tensor = load_openvino().Tensor
        try:
            for state in self.decoder.states().values():
                state.state = tensor(rows_together(state.state.data, kept))
        except BaseException:  # some layers' rows are where they were, others' are not
            self.cached.together(0)
            raise
        self.cached.together(len(kept))
        self._intact = True

    def rewind(self, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        super().rewind(length, slot)
        self._forget(length)

    def reset(self, slot: int = 0) -> None:
        """See `Engine`."""
        self.rewind(0, slot)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {
            "engine": "openvino",
            "engine_version": openvino_version(load_openvino()),
            "device": self._options.device,
            "provider": "CPU",
            "threads": self._options.threads,
            "context": self.capacity,
            "prefill_chunk": self._chunk,
            "execution": self._execution,
            "cache": self._cache_type,
        }
