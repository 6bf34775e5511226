"""The decoder's codes by a recipe, layer by layer, in the order in which a graph is written.

The writer asks for layer 0's matrices, then layer 1's, and so on. When it asks for a new layer, the
calibration samples go through that layer and its matrices are rounded on the way; the codes of the
layer before are dropped. So one layer's weights and the samples' hidden states are in memory, never
the model. The samples go on through the rounded matrices, as in the GPTQ paper, so that a matrix
also makes good the errors of those before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray

from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.errors import ExportError
from pulse_export import reference
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.awq import best_scaling, expected_loss, rounding_loss
from pulse_export.quantize.fold import DecoderFolds
from pulse_export.quantize.gptq import Compensation, Factor, damped_factor
from pulse_export.quantize.lockstep import through_layer
from pulse_export.quantize.rounding import Rounding
from pulse_export.quantize.search import BlockFormat, search
from pulse_export.quantize.statistics import hessian, mean_magnitudes, output_error
from pulse_export.quantize.weights import QuantWeight

Layouts = Callable[[int, int], BlockFormat]  # of bits and columns
HEAD = ("lm_head",)


@dataclass(frozen=True)
class MatrixError:
    """What rounding costs a matrix.

    Attributes:
        name: the linear layer.
        bits: of their codes.
        error: squared error of their outputs over the outputs' own square; None without data.
    """

    name: str
    bits: int
    error: float | None


class DecoderCodes:
    """The codes of one export. Calling it with a canonical name gives the tensor as it is folded.

    Args:
        tensors: the checkpoint's, by canonical name.
        spec: the model.
        rounding: the recipe.
        layouts: how matrices are stored.
        states: the samples' embeddings [tokens, hidden]; empty if the recipe takes no data.
        eight: names of the linear layers that get 8 bits.

    Attributes:
        errors: of every matrix that was rounded so far.
    """

    def __init__(
        self,
        tensors: Tensors,
        spec: ModelSpec,
        rounding: Rounding,
        layouts: Layouts,
        states: Sequence[Floats] = (),
        eight: frozenset[str] = frozenset(),
    ) -> None:
        self.errors: list[MatrixError] = []
        self._spec = spec
        self._rounding = rounding
        self._layouts = layouts
        self._states = list(states)
        self._eight = eight
        self._folds = DecoderFolds(tensors, spec)
        self._codes: dict[str, QuantWeight] = {}
        self._next = 0  # the first layer that is not rounded yet

    def __call__(self, name: str) -> Floats:
        part, _, rest = name.partition(".")
        if part == "layers":
            self._reach(int(rest.partition(".")[0]))
        return self._folds(name)

    def codes(self, names: tuple[str, ...]) -> QuantWeight:
        """Codes of these linear layers, stacked along their outputs.

        Raises:
            ExportError: the calibration data cannot be used.
        """
        if names != HEAD:
            self._reach(int(names[0].split(".")[1]))
        elif HEAD[0] not in self._codes:
            self._round_head()
        pieces = [self._codes[name] for name in names]
        first = pieces[0]
        return QuantWeight(
            np.concatenate([piece.codes for piece in pieces]),
            np.concatenate([piece.scales for piece in pieces]),
            first.bits,
            first.block,
            first.columns,
        )

    def _reach(self, layer: int) -> None:
        while self._next <= layer:
            self._codes.clear()
            self._round_layer(self._next)
            self._next += 1

    def _round_layer(self, i: int) -> None:
        if not self._states:
            for name in _linear_names(i):
                self._round((name,), [self._folds(f"{name}.weight")], None)
            return
        if self._rounding.row.scales:
            self._scale(i)

        def visit(names: tuple[str, ...], inputs: Sequence[Floats]) -> None:
            weights = [self._folds(f"{name}.weight") for name in names]
            self._round(names, weights, hessian(inputs, names[0]))

        rounded = cache(self._rounded)  # of this layer: each sample reads it
        self._states = through_layer(self._states, i, self._spec, rounded, visit)

    def _rounded(self, name: str) -> Floats:
        """A tensor of the model with the codes so far."""
        codes = self._codes.get(name.removesuffix(".weight"))
        return self._folds(name) if codes is None else codes.dequantize()

    def _scale(self, i: int) -> None:
        """Find and fold the scaling of layer i's four inputs."""
        read = cache(self._folds)
        found: list[tuple[tuple[str, ...], Floats]] = []

        def visit(names: tuple[str, ...], inputs: Sequence[Floats]) -> None:
            moments = hessian(inputs, names[0])
            weight = np.concatenate([read(f"{name}.weight") for name in names])
            layout = self._layout(names[0], weight.shape[1])
            magnitudes = self._folds.shared(names, mean_magnitudes(inputs))
            if self._rounding.row.compensates:
                loss = expected_loss(weight, moments, layout, self._rounding.damping)
            else:
                loss = rounding_loss(weight, moments, layout)
            found.append((names, best_scaling(magnitudes, loss)))

        through_layer(self._states, i, self._spec, read, visit)
        for names, vector in found:
            self._folds.add(names, vector)

    def _round(
        self, names: tuple[str, ...], weights: Sequence[Floats], moments: Floats | None
    ) -> None:
        factor, order = None, None
        if moments is not None and self._rounding.row.compensates:
            factor, order = self._factor(moments, names[0])
        for name, weight in zip(names, weights, strict=True):
            layout = self._layout(name, weight.shape[1])
            if factor is None:
                codes = search(weight, layout)
            else:
                codes = Compensation(weight, factor, layout, order).run()
            self._codes[name] = codes
            error = None if moments is None else output_error(weight, codes.dequantize(), moments)
            self.errors.append(MatrixError(name, layout.bits, error))

    def _factor(self, moments: Floats, name: str) -> tuple[Factor, NDArray[np.int64] | None]:
        order = None
        if self._rounding.act_order:
            order = np.argsort(-np.diagonal(moments), kind="stable")
            moments = moments[np.ix_(order, order)]
        try:
            return damped_factor(moments, self._rounding.damping), order
        except LinAlgError:
            raise ExportError(
                f"the Hessian of {name} is not positive definite with damping "
                f"{self._rounding.damping:g}; give more samples or a larger --damping"
            ) from None

    def _layout(self, name: str, columns: int) -> BlockFormat:
        return self._layouts(8 if name in self._eight else 4, columns)

    def _round_head(self) -> None:
        """The head reads the normed states of the last layer."""
        self._reach(self._spec.text.layers - 1)
        weight = self._folds("lm_head.weight")
        moments = None
        if self._states:
            norm, eps = self._folds("norm.weight"), self._spec.text.eps
            normed = [reference.rms_norm(x, norm, eps).astype(np.float32) for x in self._states]
            moments = hessian(normed, HEAD[0])
        self._round(HEAD, [weight], moments)


def _linear_names(i: int) -> tuple[str, ...]:
    """Layer i's linear layers, in the order in which graphs store them."""
    attention, mlp = f"layers.{i}.self_attn", f"layers.{i}.mlp"
    return (
        *(f"{attention}.{part}_proj" for part in "qkvo"),
        *(f"{mlp}.{part}_proj" for part in ("gate", "up", "down")),
    )
