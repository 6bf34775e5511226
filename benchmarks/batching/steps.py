"""Decode steps of a batch of sequences, each at the same depth in a cache of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.batching.graph import HEAD_INPUT, batched_decoder
from pulse_edge.arrays import Floats
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.bundle.spec import TextSpec
from pulse_edge.engines.onnxruntime_library import load_onnxruntime

FOLDER_KEY = "session.model_external_initializers_file_folder_path"
POOL = (1 << 22) + 4099  # random numbers; no row of a cache divides it
ROW_SPREAD = 0.02  # standard deviation of embeddings


class SequenceCaches:
    """Keys and values of several sequences, filled with random numbers.

    Attributes:
        arrays: [sequences, kv heads, rows, head size] by "layer.key" and "layer.value".
    """

    def __init__(
        self, text: TextSpec, sequences: int, rows: int, dtype: Any, rng: np.random.Generator
    ) -> None:
        shape = (sequences, text.kv_heads, rows, text.head_size)
        pool = rng.standard_normal(POOL, np.float32)
        if dtype == np.int8:
            pool = np.clip(pool * 40, -127, 127)
        pool = pool.astype(dtype)
        self.arrays: dict[str, NDArray[Any]] = {}
        for layer in range(text.layers):
            for part in ("key", "value"):
                self.arrays[f"{layer}.{part}"] = np.resize(pool, shape)


class BatchedSteps:
    """Runs one decode step for some of the sequences.

    Args:
        bundle: for the CPU.
        threads: of ONNX Runtime.
        sequences: how many have a cache.
        rows: positions of each cache.
        seed: of the random rows and caches.

    Attributes:
        rows: embeddings of each sequence's next token, [sequences, 1, hidden].
    """

    def __init__(self, bundle: Bundle, threads: int, sequences: int, rows: int, seed: int) -> None:
        manifest = bundle.manifest
        rng = np.random.default_rng(seed)
        self._text = manifest.model.text
        dtype = np.int8 if manifest.precision.kv_cache == "int8" else np.float32
        self._caches = SequenceCaches(self._text, sequences, rows, dtype, rng)
        shape = (sequences, 1, self._text.hidden)
        self.rows = (ROW_SPREAD * rng.standard_normal(shape)).astype(np.float32)
        graph = bundle.read(DECODER_GRAPH)
        self._sessions = {
            head: _session(batched_decoder(graph, head=head), bundle.path, threads)
            for head in (True, False)
        }

    def __call__(
        self, first: int, batch: int, depth: int, *, head: bool = True
    ) -> tuple[float, Floats]:
        """One step of `batch` sequences from `first` on, with `depth` positions cached in each.

        Returns:
            Seconds, and what the graph gave: logits [batch, vocab], or the head's input.
        """
        chosen = slice(first, first + batch)
        values = load_onnxruntime().OrtValue.ortvalue_from_numpy
        session = self._sessions[head]
        binding = session.io_binding()
        inputs: dict[str, NDArray[Any]] = {
            "inputs_embeds": self.rows[chosen],
            "logit_rows": np.zeros(1, np.int64),
            "seqlens_k": np.full(batch, depth, np.int32),
            "total_length": np.array(depth + 1, np.int32),
        }
        for name, array in inputs.items():
            binding.bind_ortvalue_input(name, values(array))
        for name, array in self._caches.arrays.items():  # one buffer: updated in place
            value = values(array[chosen])
            binding.bind_ortvalue_input(f"past.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        output = np.empty(self._output_shape(batch, head), np.float32)
        binding.bind_ortvalue_output("logits" if head else HEAD_INPUT, values(output))
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        return time.perf_counter() - start, output

    def _output_shape(self, batch: int, head: bool) -> tuple[int, ...]:
        return (batch, self._text.vocab) if head else (batch, 1, self._text.hidden)


def _session(graph: bytes, folder: Path, threads: int) -> Any:
    ort = load_onnxruntime()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    settings.add_session_config_entry(FOLDER_KEY, str(folder))
    return ort.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
