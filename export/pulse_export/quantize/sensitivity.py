"""How much 4 and 8 bits cost each of the decoder's matrices, on calibration data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from pulse_edge.bundle.spec import ModelSpec
from pulse_export.checkpoint import Floats, Tensors
from pulse_export.quantize.decoder_codes import Layouts
from pulse_export.quantize.lockstep import through_layer
from pulse_export.quantize.mix import Sensitivity
from pulse_export.quantize.search import BlockFormat, search
from pulse_export.quantize.statistics import hessian, output_error


def sensitivities(
    tensors: Tensors, spec: ModelSpec, layouts: Layouts, states: Sequence[Floats]
) -> list[Sensitivity]:
    """Errors under plain rounding with searched scales, every other matrix in floats.

    Matrices that read the same input are one row, because kernels run them as one.

    Args:
        tensors: the checkpoint's, each of the decoder's matrices asked for once.
        spec: the model.
        layouts: how matrices are stored.
        states: the samples' embeddings [tokens, hidden].
    """
    table: list[Sensitivity] = []
    for i in range(spec.text.layers):
        read = cache(tensors)

        def visit(names: tuple[str, ...], inputs: Sequence[Floats], read: Tensors = read) -> None:
            moments = hessian(inputs, names[0])
            weight = np.concatenate([read(f"{name}.weight") for name in names])
            table.append(_sensitivity(names, weight, moments, layouts))

        states = through_layer(states, i, spec, read, visit)
    return table


def _sensitivity(
    names: tuple[str, ...], weight: Floats, moments: Floats, layouts: Layouts
) -> Sensitivity:
    errors, sizes = [], []
    for bits in (4, 8):
        layout = layouts(bits, weight.shape[1])
        errors.append(output_error(weight, search(weight, layout).dequantize(), moments))
        sizes.append(stored_bytes(weight.shape, layout))
    return Sensitivity(names, (errors[0], errors[1]), (sizes[0], sizes[1]))


def stored_bytes(shape: tuple[int, ...], layout: BlockFormat) -> int:
    """Bytes of a matrix [rows, columns] with its scales."""
    blocks = layout.blocks(shape[1])
    codes = blocks * layout.block * layout.bits // 8
    return shape[0] * (codes + blocks * np.dtype(layout.scale_type).itemsize)
