"""The table of precisions, and block quantization of a weight.

A precision says what each part of the model is stored as; a target says whether it can run that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .threads import over_rows

Storage = Literal["fp32", "fp16", "int8", "int4", "w8a8"]
BITS: dict[str, int] = {"int8": 8, "int4": 4, "w8a8": 8}  # w8a8: weights as int8's, multiplied with 8-bit activations


@dataclass(frozen=True)
class Precision:
    """A row: storage of each part's weights. The patch embedding, norms, biases and positions stay in `io`'s float."""

    name: str
    decoder: Storage
    head: Storage
    vision: Storage  # tower and projector
    block_size: int  # default of the export
    recipe: str


# The head of int4 stays in 8 bits, the tower in 8: together under 5 % of PULSE-7B's bytes, and the parts where 4 bits
# cost most (llama.cpp keeps the output matrix in 6 bits for the same reason).
PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", "fp32", "fp32", "fp32", 0, "none"),
        Precision("fp16", "fp16", "fp16", "fp16", 0, "none"),
        Precision("int8", "int8", "int8", "int8", 128, "RTN symmetric"),
        Precision("int4", "int4", "int8", "int8", 32, "RTN symmetric"),
        # The head reads one row a token: 8-bit activations would save nothing there, and cost what is sampled from.
        Precision("w8a8", "w8a8", "int8", "w8a8", 128, "RTN symmetric"),
    )
}
BLOCK_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class QuantWeight:
    """A linear layer's weight in blocks along its inputs: value = (code - zero) * scale.

    codes: uint8 [rows, blocks * block], the tail block padded with `zero`; scales: float32 [rows, blocks].
    The zero point is the middle of the code range: 8 for 4 bits, 64 for 7, 128 for 8.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    bits: int
    block: int
    columns: int  # inputs of the layer, without padding

    @property
    def zero(self) -> int:
        return 1 << (self.bits - 1)

    def dequantize(self) -> NDArray[np.float32]:
        """float32 [rows, columns]."""
        rows = self.codes.shape[0]
        blocks = self.codes.reshape(rows, -1, self.block).astype(np.float32) - self.zero
        return (blocks * self.scales[..., None]).reshape(rows, -1)[:, : self.columns]


def quantize(weight: NDArray[np.float32], bits: int, block: int, *, signed: bool = True) -> QuantWeight:
    """Round to nearest, symmetric, one scale per `block` inputs of each row of `weight` [rows, columns].

    The scale puts the element of largest magnitude on the end of the code range that has one step more
    (-8 of -8…7), the choice of ggml's Q4_0: it uses all 16 codes, and errs less than absmax / 7. It is negative where
    that element is positive; with `signed` false such an element goes to 7 instead, and no scale is negative.
    """
    rows, columns = weight.shape
    blocks = -(-columns // block)
    codes = np.empty((rows, blocks * block), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    step = max(1, (1 << 21) // max(1, blocks * block))  # rows a task: temporaries of about 8 MB each

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
