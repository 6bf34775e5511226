"""What `vision.py` and `decoder.py` write with: a graph, a target, a precision and the checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import Graph
from .precision import BITS, Precision, QuantWeight, quantize
from .targets import Target

Tensors = Callable[[str], NDArray[np.float32]]


@dataclass(frozen=True)
class Net:
    """One graph being written. `part` of the precision table decides how `linear` stores its weight."""

    graph: Graph
    target: Target
    precision: Precision
    block: int
    tensors: Tensors

    def linear(self, x: str, *names: str, part: str, name: str | None = None) -> str:
        """A Linear layer; several names are stacked along their outputs into one. Biases are found by their names."""
        stacked = [self.tensors(f"{n}.weight") for n in names]
        weight = stacked[0] if len(stacked) == 1 else np.concatenate(stacked)
        bias = self.tensors(f"{names[0]}.bias") if part == "vision" else None
        storage = getattr(self.precision, part)
        stored = self._quantized(weight, storage) if storage in BITS else weight
        return self.target.emit_linear(self.graph, x, stored, bias, name or names[0])

    def _quantized(self, weight: NDArray[np.float32], storage: str) -> QuantWeight:
        block = self.block if storage in self.target.blocked else weight.shape[1]
        return quantize(weight, self.target.bits(storage), block, signed=self.target.signed_scales)

    def parameter(self, name: str) -> str:
        """A small tensor that is never quantized (norms, positions)."""
        return self.graph.weight(name, self.tensors(name).astype(self.target.io))

    def layer_norm(self, x: str, name: str, eps: float) -> str:
        weight, bias = self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias")
        return self.target.emit_layer_norm(self.graph, x, weight, bias, eps, name)

    def node(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        return self.graph.node(op, inputs, name=name, **attributes)

    def ints(self, *values: int) -> str:
        return self.graph.constant(np.array(values, np.int64))
