"""Prompts of bundles that have weights of their own for them, on ONNX Runtime's CPU provider.

Of a prompt all rows but the last run through the decoder for prompts, which has no head. The last
one runs through the decoder of the steps, and has the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pulse_edge.engines.engine import Rows
from pulse_edge.engines.onnxruntime_runs import Decoder, DecoderRun
from pulse_edge.engines.onnxruntime_tensors import DeviceTensor


@dataclass(frozen=True)
class PromptDecoder:
    """The decoder for prompts.

    Attributes:
        decoder: as the other one, but for its session.
        coded: the cache has 8-bit codes, and the graph gives those of a chunk's rows.
    """

    decoder: Decoder
    coded: bool

    def run(self, rows: int, slot: int) -> DecoderRun:
        """A run of so many new positions of a slot. It gives no logits."""
        kind = CodedPromptRun if self.coded else DecoderRun
        return kind(self.decoder, rows, 0, slot=slot)


class CodedPromptRun(DecoderRun):
    """A run whose new keys and values come as codes, which it puts into the cache."""

    def __init__(self, decoder: Decoder, rows: int, logit_rows: int, slot: int) -> None:
        self._slot = slot
        self._new: dict[str, DeviceTensor] = {}
        super().__init__(decoder, rows, logit_rows, slot=slot)

    def _bind_cache(self, cache: dict[str, Any]) -> None:
        text, provider = self._decoder.text, self._decoder.provider
        shape = (1, text.kv_heads, self._rows, text.head_size)
        for name, value in cache.items():
            self._new[name] = DeviceTensor(np.empty(shape, np.int8), provider)
            self._binding.bind_ortvalue_input(f"past.{name}", value)
            self._binding.bind_ortvalue_output(f"new.{name}", self._new[name].value)

    def __call__(self, rows: Rows, position: int) -> None:
        """See `DecoderRun`."""
        super().__call__(rows, position)
        codes = {name: tensor.array for name, tensor in self._new.items()}
        self._decoder.cache.put(codes, position, self._slot)
