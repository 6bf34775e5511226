"""Scales of blocks by search, for codes that err least in the mean square.

Rounding to nearest with the scale of the block's largest weight (`weights.quantize`) spends the
code range on one weight. Here several scales are tried for each block, each is refitted to its
codes by least squares, and the one with the least error stays. Refit: llama.cpp's `make_qx_quants`
(ggml-quants.c), scale = sum(h w q) / sum(h q q) for weights w, signed codes q and importances h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_export.quantize.weights import QuantWeight
from pulse_export.threads import over_rows

Floats = NDArray[np.float32]

# Scales that are tried, in multiples of the one that puts the largest weight on the code range's
# end. Below 1 the largest weight is clipped. Smaller factors never won on pulse-nano's weights.
FACTORS = tuple(np.linspace(0.7, 1.1, 9).tolist())
TASK = 1 << 18  # weights of a task: temporaries of about 1 MB each, which stay in a core's cache


@dataclass(frozen=True)
class BlockFormat:
    """How a weight's blocks are stored.

    Attributes:
        bits: of a code.
        block: inputs that share a scale.
        signed: whether a scale may be negative.
        scale_type: the float type that the bundle stores scales in. Scales are rounded to it before
            the codes are chosen, so that the codes fit the stored scales.
    """

    bits: int
    block: int
    signed: bool = True
    scale_type: type[np.generic] = np.float32

    @property
    def half(self) -> int:
        """The zero point; signed codes go from -half to half - 1."""
        return 1 << (self.bits - 1)

    def blocks(self, columns: int) -> int:
        """Blocks of a row, the tail's with them."""
        return -(-columns // self.block)

    def stored(self, scales: Floats) -> Floats:
        """Scales as the bundle stores them, as float32.

        A scale that may not be negative may not be zero either (TensorRT), so the smallest
        positive number stands for zero.
        """
        kind: Any = np.finfo(self.scale_type)
        rounded = scales.clip(-kind.max, kind.max).astype(self.scale_type).astype(np.float32)
        if not self.signed:
            return np.maximum(rounded, np.float32(kind.smallest_subnormal))
        rounded[np.abs(rounded) < np.finfo(np.float32).tiny] = 0
        return rounded

    def codes(self, weights: Floats, scales: Floats) -> Floats:
        """Signed codes nearest to weights [..., block], whose scales are [...]."""
        usable = np.abs(scales) >= np.finfo(np.float32).tiny
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=usable)
        codes = weights * inverse[..., None]
        np.rint(codes, out=codes)
        np.minimum(codes, self.half - 1, out=codes)
        return np.maximum(codes, -self.half, out=codes)


def searched_scales(
    weight: Floats, layout: BlockFormat, importance: Floats | None = None
) -> Floats:
    """The scale of each block that makes its squared error least, as it is stored.

    Args:
        weight: [rows, columns].
        layout: how it is stored.
        importance: float32 [columns], not negative: how much an input's error counts. None: all the
            same.

    Returns:
        float32 [rows, blocks].
    """
    rows, columns = weight.shape
    count = layout.blocks(columns)
    padding = count * layout.block - columns
    scales = np.empty((rows, count), np.float32)
    heavy = None
    if importance is not None:
        heavy = np.pad(importance, (0, padding)).reshape(count, layout.block)

    def work(at: slice) -> None:
        scales[at] = _searched(_blocks(weight[at], layout), heavy, layout)

    over_rows(work, rows, max(1, TASK // max(1, count * layout.block)))
    return scales


def _blocks(weight: Floats, layout: BlockFormat) -> Floats:
    """[rows, blocks, block], the tail padded with zeros."""
    count = layout.blocks(weight.shape[1])
    padding = count * layout.block - weight.shape[1]
    padded = np.pad(weight, ((0, 0), (0, padding))) if padding else weight
    return padded.reshape(-1, count, layout.block)


def _searched(blocks: Floats, importance: Floats | None, layout: BlockFormat) -> Floats:
    """Scales [rows, blocks] of blocks [rows, blocks, block]."""
    high, low = blocks.max(axis=2), blocks.min(axis=2)
    larger = np.where(high > -low, high, low)
    smaller = np.where(high > -low, low, high)
    weighted = blocks if importance is None else blocks * importance
    best: Floats = np.zeros_like(larger)
    least = np.einsum("rbk,rbk->rb", weighted, blocks)  # error of zeros
    for extreme in (larger, smaller) if layout.signed else (larger,):
        first = _first_scale(extreme, low, high, layout)
        for factor in FACTORS:
            codes = layout.codes(blocks, first * np.float32(factor))
            fitted = _fitted(weighted, codes, importance)
            # Not the sum of squares less what the codes explain: at 8 bits float32 rounds the
            # difference away.
            errors = blocks - codes * fitted[..., None]
            heavy = errors if importance is None else errors * importance
            error = np.einsum("rbk,rbk->rb", heavy, errors)
            better = (error < least) & (layout.signed | (fitted > 0))
            best[better], least[better] = fitted[better], error[better]
    return layout.stored(best)


def _fitted(weighted: Floats, codes: Floats, importance: Floats | None) -> Floats:
    """Scales of least squares for these codes; 0 where all codes are."""
    product = np.einsum("rbk,rbk->rb", weighted, codes)
    heavy = codes if importance is None else codes * importance
    square = np.einsum("rbk,rbk->rb", heavy, codes)
    usable = square > np.finfo(np.float32).tiny
    fitted: Floats = np.divide(product, square, out=np.zeros_like(product), where=usable)
    return fitted


def _first_scale(extreme: Floats, low: Floats, high: Floats, layout: BlockFormat) -> Floats:
    """The scale that puts `extreme` on the code range's longer end, or keeps all in the range."""
    if layout.signed:
        return extreme / np.float32(-layout.half)
    scale: Floats = np.maximum(high / np.float32(layout.half - 1), low / np.float32(-layout.half))
    return scale


def search(weight: Floats, layout: BlockFormat, importance: Floats | None = None) -> QuantWeight:
    """Round to nearest, with the scale of each block that makes its error least.

    Args:
        weight: [rows, columns].
        layout: how it is stored.
        importance: as of `searched_scales`.

    Returns:
        The codes, and scales that `layout.scale_type` holds exactly.
    """
    rows, columns = weight.shape
    width = layout.blocks(columns) * layout.block
    scales = searched_scales(weight, layout, importance)
    codes = np.empty((rows, width), np.uint8)

    def work(at: slice) -> None:
        signed = layout.codes(_blocks(weight[at], layout), scales[at])
        codes[at] = (signed + layout.half).astype(np.uint8).reshape(-1, width)

    over_rows(work, rows, max(1, TASK // max(1, width)))
    return QuantWeight(codes, scales, layout.bits, layout.block, columns)
