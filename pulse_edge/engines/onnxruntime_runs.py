"""Runs of ONNX Runtime sessions with bound inputs and outputs.

There is one kind for the decoder, and one for the vision tower. A run keeps its buffers and their
binding, and writes the buffers in place. CUDA graphs need that: they replay the addresses that were
bound when they were captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.engine import Rows, likeliest
from pulse_edge.engines.onnxruntime_library import first_line, load_onnxruntime
from pulse_edge.engines.onnxruntime_providers import HOST, Provider
from pulse_edge.engines.onnxruntime_tensors import DeviceCache, DeviceTable, DeviceTensor
from pulse_edge.errors import EngineError

NO_GRAPH = "-1"  # as gpu_graph_id; others name a graph (onnxruntime_run_options_config_keys.h)


@dataclass(frozen=True)
class Decoder:
    """What all runs of the decoder share.

    Attributes:
        session: ONNX Runtime's.
        provider: of the session.
        text: the decoder's sizes.
        dtype: of embeddings that come from the host.
        capacity: tokens of the cache.
        cache: which the runs append to.
        table: which the graph gathers from; None if it takes embeddings.
        standard: it is the graph for TensorRT, whose cache operator takes a position.
        captures: the session can capture graphs.
    """

    session: Any
    provider: Provider
    text: TextSpec
    dtype: Any
    capacity: int
    cache: DeviceCache
    table: DeviceTable | None
    standard: bool
    captures: bool


class DecoderRun:
    """Runs the decoder for a number of new positions, with logits of the last `logit_rows`.

    A graph replays the values that it read from the host's memory when it was captured. Only the
    total length lives there, so a captured run states the cache's capacity, and the operator goes
    by `seqlens_k`. No output but the cache's may share memory with an input, because ONNX Runtime
    runs a graph more than once to capture it.

    Args:
        decoder: what all runs share.
        rows: new positions of each slot.
        logit_rows: of each slot, the last ones; 0 for a decoder that gives no logits.
        graph: id of a graph to capture; `NO_GRAPH` for none.
        slot: the first that it appends to.
        count: of neighbouring slots.

    Attributes:
        options: ONNX Runtime's RunOptions. To set their `terminate` ends a run early.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: int,
        logit_rows: int,
        graph: str = NO_GRAPH,
        slot: int = 0,
        count: int = 1,
    ) -> None:
        self._decoder = decoder
        self._rows = rows
        self._count = count
        self._captured = graph != NO_GRAPH
        self.options = load_onnxruntime().RunOptions()
        # Set the id even if no graph is captured: ONNX Runtime asks for it before each run, and a
        # missing one costs an exception of 30 us there.
        self.options.add_run_config_entry("gpu_graph_id", graph)
        try:
            self._bind(logit_rows, decoder.cache.part(slot, count))
        except Exception as error:
            problem = f"no memory for {rows} tokens at a time ({first_line(error)})"
            raise EngineError(f"{problem}; lower --prefill-chunk") from None

    def _bind(self, logit_rows: int, cache: dict[str, Any]) -> None:
        decoder = self._decoder
        provider = decoder.provider
        self._seqlens = DeviceTensor(np.zeros(self._count, np.int32), provider)
        # The operator reads the total length on the host, and the standard graphs the position
        # instead of both lengths.
        self._total = DeviceTensor(np.full((), decoder.capacity, np.int32), HOST)
        self._position = DeviceTensor(np.zeros(1, np.int64), provider)
        self._logit_rows = DeviceTensor(np.arange(self._rows - logit_rows, self._rows), provider)
        self._logit_rows.upload()
        logits = np.empty((self._count * logit_rows, decoder.text.vocab), np.float32)
        self._logits = DeviceTensor(logits, provider)
        self._binding = decoder.session.io_binding()
        self._bind_rows(logit_rows)
        if decoder.standard:
            self._binding.bind_ortvalue_input("position", self._position.value)
        else:
            self._binding.bind_ortvalue_input("seqlens_k", self._seqlens.value)
            self._binding.bind_ortvalue_input("total_length", self._total.value)
        if logit_rows:
            self._binding.bind_ortvalue_input("logit_rows", self._logit_rows.value)
            self._binding.bind_ortvalue_output("logits", self._logits.value)
        self._bind_cache(cache)

    def _bind_cache(self, cache: dict[str, Any]) -> None:
        for name, value in cache.items():  # one buffer, so the update is in place
            self._binding.bind_ortvalue_input(f"past.{name}", value)
            self._binding.bind_ortvalue_output(f"present.{name}", value)

    def _bind_rows(self, logit_rows: int) -> None:
        """Numbers, the table they point into and the tokens chosen; or embeddings."""
        decoder = self._decoder
        self._tokens: DeviceTensor | None = None
        if decoder.table is None:
            shape = (self._count, self._rows, decoder.text.hidden)
            self._inputs = DeviceTensor(np.empty(shape, decoder.dtype), decoder.provider)
            self._binding.bind_ortvalue_input("inputs_embeds", self._inputs.value)
            return
        self._inputs = DeviceTensor(np.zeros(self._rows, np.int64), decoder.provider)
        self._tokens = DeviceTensor(np.zeros(logit_rows, np.int64), decoder.provider)
        self._binding.bind_ortvalue_input("rows", self._inputs.value)
        self._binding.bind_ortvalue_input("table", decoder.table.value)
        self._binding.bind_ortvalue_output("tokens", self._tokens.value)

    @property
    def total(self) -> int:
        """The length that the operator was last told on the host."""
        return int(self._total.array)

    def tensors(self) -> tuple[DeviceTensor, ...]:
        """All buffers but the cache and the table."""
        return tuple(v for v in vars(self).values() if isinstance(v, DeviceTensor))

    def __call__(self, rows: Rows, position: int) -> None:
        """Write the rows to the cache from `position` on; then ask for `logits` or `chosen`.

        Raises:
            ValueError: the rows are not of the kind that the graph takes.
            EngineError: the graph failed.
        """
        total = position + self._rows
        if rows.ndim != self._inputs.array.ndim - (self._tokens is None):
            raise ValueError(f"rows are of shape {rows.shape}; `Engine.rows` makes those that fit")
        self._inputs.array[...] = rows
        self._seqlens.array[0] = total - 1
        if not self._captured:
            self._total.array[...] = total
        self._position.array[0] = position
        self._run(total)

    def _run(self, total: int) -> None:
        decoder = self._decoder
        try:
            self._inputs.upload()
            self._seqlens.upload()
            if decoder.standard:
                self._position.upload()
            decoder.session.run_with_iobinding(self._binding, self.options)
        except Exception as error:
            problem = f"the decoder graph failed at {total} tokens"
            raise EngineError(f"{problem}: {first_line(error)}") from None

    def together(self, rows: Rows, positions: list[int]) -> None:
        """Write one row to each slot; then ask for `logits`. For the host's embeddings.

        Args:
            rows: [count, hidden].
            positions: where each slot's row goes.

        Raises:
            EngineError: the graph failed.
        """
        self._inputs.array[:, 0] = rows
        self._seqlens.array[...] = positions
        total = max(positions) + 1
        self._total.array[...] = total
        self._run(total)

    def logits(self) -> Floats:
        """float32 [count * logit_rows, vocab] of the last run; valid until the next."""
        self._logits.download()
        return self._logits.array

    def chosen(self) -> Numbers:
        """The most likely tokens [logit_rows] of the last run; -1 as in `likeliest`."""
        if self._tokens is None:
            return likeliest(self.logits())
        self._tokens.download()
        return self._tokens.array.copy()


class TowerRun:
    """Runs the vision tower for a number of views; the features go into the table."""

    def __init__(
        self,
        session: Any,
        table: DeviceTable,
        shape: tuple[int, ...],
        provider: Provider,
    ) -> None:
        self._session = session
        self._pixels = DeviceTensor(np.empty(shape, np.float32), provider)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("pixels", self._pixels.value)
        table.bind_page(self._binding, shape[0])

    def __call__(self, pixels: Floats, options: Any) -> None:
        """Encode pixels [views, 3, side, side]. `options`: ONNX Runtime's RunOptions."""
        self._pixels.write(np.ascontiguousarray(pixels, np.float32))
        self._session.run_with_iobinding(self._binding, options)
