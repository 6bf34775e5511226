"""Graphs of the target `standard`, run by ONNX Runtime's CPU provider as they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Its optimizer would make a `MatMulNBits` of a `DequantizeLinear` and a `MatMul`, and quantize
    # activations.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Decoder:
    """The decoder graph with its cache updated in place: `past` and `present` are one buffer."""

    def __init__(self, path: Path, io: type[np.float32 | np.float16] = np.float32) -> None:
        self.session = session(path)
        self.io = io
        self.length = 0
        self.cache = {
            i.name.removeprefix("past."): ort.OrtValue.ortvalue_from_numpy(np.zeros(i.shape, io))
            for i in self.session.get_inputs()
            if i.name.startswith("past.")
        }

    def __call__(self, embeds: Floats, rows: list[int] | None = None) -> Floats:
        """embeds [n, hidden] of the next n positions -> logits of `rows`, or of all."""
        binding = self.session.io_binding()
        inputs = {
            "inputs_embeds": embeds[None].astype(self.io),
            "logit_rows": np.array(range(len(embeds)) if rows is None else rows, np.int64),
            "position": np.array([self.length], np.int64),
        }
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(f"past.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        self.length += len(embeds)
        logits: Floats = binding.get_outputs()[-1].numpy()
        return logits


def features(path: Path, pixels: Floats) -> Floats:
    """pixels [views, 3, side, side] -> features [views, patches, hidden]."""
    out: Floats = session(path).run(["features"], {"pixels": pixels})[0]
    return out
