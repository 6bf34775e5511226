"""Block quantization of a weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_export.threads import over_rows


@dataclass(frozen=True)
class QuantWeight:
    """A linear layer's weight in blocks along its inputs: value = (code - zero) * scale.

    The zero point is the middle of the code range: 8 for 4 bits, 64 for 7, 128 for 8.

    Attributes:
        codes: uint8 [rows, blocks * block], the tail block padded with `zero`.
        scales: float32 [rows, blocks].
        bits: of a code.
        block: inputs that share a scale.
        columns: inputs of the layer, without padding.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    bits: int
    block: int
    columns: int

    @property
    def zero(self) -> int:
        return 1 << (self.bits - 1)

    def dequantize(self) -> NDArray[np.float32]:
        """float32 [rows, columns]."""
        rows = self.codes.shape[0]
        blocks = self.codes.reshape(rows, -1, self.block).astype(np.float32) - self.zero
        return (blocks * self.scales[..., None]).reshape(rows, -1)[:, : self.columns]


def quantize(
    weight: NDArray[np.float32], bits: int, block: int, *, signed: bool = True
) -> QuantWeight:
    """Round to nearest, symmetric, with one scale for each block of a row's inputs.

    The scale puts the element of largest magnitude on the end of the code range that has one step
    more (-8 of -8…7), as ggml's Q4_0 does. All 16 codes are used, and the error is below absmax /
    7.

    Args:
        weight: [rows, columns].
        signed: the scale is negative if the block's largest element is positive. If False, that
            element goes to the end with fewer steps (7) instead, and no scale is negative.
    """
    rows, columns = weight.shape
    blocks = -(-columns // block)
    codes = np.empty((rows, blocks * block), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    step = max(1, (1 << 21) // max(1, blocks * block))  # rows a task: temporaries of about 8 MB

    def work(at: slice) -> None:
        part = weight[at]
        if blocks * block != columns:
            part = np.pad(part, ((0, 0), (0, blocks * block - columns)))
        codes[at], scales[at] = _quantize_rows(part, bits, block, signed)

    over_rows(work, rows, step)
    return QuantWeight(codes, scales, bits, block, columns)


def _quantize_rows(
    weight: NDArray[np.float32], bits: int, block: int, signed: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    grouped = weight.reshape(weight.shape[0], -1, block)
    high, low = grouped.max(axis=2), grouped.min(axis=2)
    extreme = np.where(high > -low, high, low)  # signed element of largest magnitude
    half = 1 << (bits - 1)
    scale = (extreme / np.where((extreme > 0) & (not signed), half - 1, -half)).astype(np.float32)
    scale[np.abs(scale) < np.finfo(np.float32).tiny] = 0  # subnormal: its inverse would overflow
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = grouped * inverse[..., None]
    np.rint(codes, out=codes)
    codes += half
    np.minimum(codes, 2 * half - 1, out=codes)
    np.maximum(codes, 0, out=codes)
    return codes.astype(np.uint8).reshape(weight.shape), scale
