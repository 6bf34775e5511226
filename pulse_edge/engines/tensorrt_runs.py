"""Runs of the decoder's plan."""

from __future__ import annotations

import numpy as np

from pulse_edge.bundle.plans import PlanIndex
from pulse_edge.engines.cuda_runtime import CudaDevice
from pulse_edge.engines.tensorrt_contexts import PlanContext


class PlanBuffers:
    """The decoder's inputs and outputs besides the cache. Its contexts share them in turns."""

    def __init__(self, device: CudaDevice, index: PlanIndex, hidden: int, vocab: int) -> None:
        self.hidden = hidden
        most_rows = max(index.prefill_rows, index.logit_rows)
        self.embeds = device.buffer((most_rows, hidden), np.float16)
        self.position = device.buffer((1,), np.int64)
        self.logit_rows = device.buffer((index.logit_rows,), np.int64)
        self.logits = device.buffer((index.logit_rows, vocab), np.float32)
        self.addresses = {
            "inputs_embeds": self.embeds.address,
            "position": self.position.address,
            "logit_rows": self.logit_rows.address,
            "logits": self.logits.address,
        }


class PlanRun:
    """Runs one of the decoder's contexts.

    From the second run of a shape on, a run can be one CUDA graph.
    """

    def __init__(self, context: PlanContext, buffers: PlanBuffers) -> None:
        self._context = context
        self._buffers = buffers
        self._shape = (0, 0)

    def __call__(self, rows: int, logit_rows: int, capture: bool) -> None:
        """Put a run on the stream.

        Args:
            rows: new positions, whose embeddings and first position are in the buffers.
            logit_rows: how many of the last rows get logits.
            capture: run it as a graph if possible.
        """
        context = self._context
        self._buffers.logit_rows.host[:logit_rows] = range(rows - logit_rows, rows)
        if (rows, logit_rows) != self._shape:
            self._shape = (0, 0)
            context.drop_graph()
            context.shape("inputs_embeds", (1, rows, self._buffers.hidden))
            context.shape("logit_rows", (logit_rows,))
            # No capture: the first run after a change of shapes does work that TensorRT put off.
            self._issue(rows, logit_rows)
            self._shape = rows, logit_rows
        elif capture and context.capturable:
            context.launch(lambda: self._issue(rows, logit_rows))
        else:
            self._issue(rows, logit_rows)

    def _issue(self, rows: int, logit_rows: int) -> None:
        """Copies read their source when the stream gets there; in a graph, at each launch."""
        buffers = self._buffers
        buffers.embeds.upload(rows)
        buffers.position.upload(1)
        buffers.logit_rows.upload(logit_rows)
        self._context.enqueue()
        buffers.logits.download(logit_rows)
