"""A graph, target, precision and tensors to write a network with.

`vision.py` and `decoder.py` write with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_export.checkpoint import Tensors
from pulse_export.graph import Graph
from pulse_export.quantize.decoder_codes import DecoderCodes
from pulse_export.quantize.precision import RECIPE_STORAGE, STORAGES, Precision, Storage
from pulse_export.quantize.smooth import Smoothed
from pulse_export.quantize.weights import QuantWeight, quantize
from pulse_export.targets.target import Target, Weight


@dataclass(frozen=True)
class NetworkWriter:
    """One graph being written. `linear` stores a weight as the precision has its part.

    Attributes:
        block: inputs that share a scale, for storages that the target has in blocks.
        tensors: the checkpoint's tensors by canonical name.
        smoothed: tensors with their calibration, if activations are quantized too; then
            `tensors` is the same object.
        codes: of the matrices that the precision stores in 4 bits, by a recipe; then `tensors` is
            the same object. None rounds them to nearest.
    """

    graph: Graph
    target: Target
    precision: Precision
    block: int
    tensors: Tensors
    smoothed: Smoothed | None = None
    codes: DecoderCodes | None = None

    def linear(
        self, x: str, *names: str, part: str, name: str | None = None, biased: bool = False
    ) -> str:
        """A Linear layer; several names are stacked along their outputs into one.

        Args:
            x: what it reads.
            *names: of its weights.
            part: of the network, which has a storage.
            name: of the node; None: the first of the names.
            biased: whether it has biases, which are found by its names. Those of the vision part
                always have.
        """
        bias = None
        if biased or part == "vision":
            bias = np.concatenate([self.tensors(f"{layer}.bias") for layer in names])
        storage = STORAGES[getattr(self.precision, part)]
        scale = None
        if storage.rounds_inputs and self.smoothed:
            x, scale = (
                self._smoothed_input(x, names[0], self.smoothed),
                self.smoothed.scale(names[0]),
            )
        stored = self._stored(names, storage)
        return self.target.emit_linear(self.graph, x, stored, bias, name or names[0], scale)

    def stored_linear(
        self,
        x: str,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        *,
        part: str,
        name: str,
    ) -> str:
        """A Linear layer whose weight [outputs, inputs] is given, not read by its name.

        It is stored as the precision has its part. No scales of a calibration belong to it.
        """
        storage = STORAGES[getattr(self.precision, part)]
        stored = self._quantized(weight, storage.name) if storage.quantized else weight
        return self.target.emit_linear(self.graph, x, stored, bias, name)

    def _stored(self, names: tuple[str, ...], storage: Storage) -> Weight:
        """The matrix of these layers as the precision stores it."""
        if self.codes is not None and storage.name == RECIPE_STORAGE:
            return self.codes.codes(names)
        stacked = [self.tensors(f"{n}.weight") for n in names]
        weight = stacked[0] if len(stacked) == 1 else np.concatenate(stacked)
        return self._quantized(weight, storage.name) if storage.quantized else weight

    def _smoothed_input(self, x: str, layer: str, smoothed: Smoothed) -> str:
        factor = smoothed.factor(layer)
        if factor is None:
            return x
        stored = self.graph.weight(f"{layer}.smoothing", factor.astype(self.target.io))
        return self.node("Mul", x, stored, name=f"{layer}.smoothed")

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
