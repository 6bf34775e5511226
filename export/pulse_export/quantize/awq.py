"""Scaling before rounding: inputs with large activations get a finer grid.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978, equations 4 and 5:
column k of the weights that read an input is multiplied by s_k, the input is divided by it, and
s = magnitude ** alpha with the mean |x_k| as magnitude. alpha is searched on a grid of [0, 1]; as
in the authors' code (awq/quantize/auto_scale.py), s is divided by sqrt(max s * min s). The division
folds into the tensors that write the input (`quantize.smooth.sites`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pulse_export.quantize.gptq import damped_factor
from pulse_export.quantize.search import BlockFormat, search

Floats = NDArray[np.float32]

GRID = tuple(np.linspace(0, 1, 21).tolist())  # of alpha; 0 leaves everything as it is
SAMPLED_ROWS = 256  # of a weight, evenly spaced: the error of these stands for all
REACH = 1e4  # what is folded stays within float16


def scaling(magnitudes: Floats, alpha: float) -> Floats:
    """s float32 [columns] of an input's channels; 1 for channels that are always zero."""
    live = magnitudes > 0
    if not live.any():
        return np.ones_like(magnitudes)
    powers = np.ones(magnitudes.shape, np.float64)
    powers[live] = magnitudes[live].astype(np.float64) ** alpha
    powers[live] /= np.sqrt(powers[live].max() * powers[live].min())
    return powers.clip(1 / REACH, REACH).astype(np.float32)


def best_scaling(magnitudes: Floats, loss: Callable[[Floats], float]) -> Floats:
    """s of the alpha in `GRID` with the least loss; of equal ones the smallest alpha."""
    return min((scaling(magnitudes, alpha) for alpha in GRID), key=loss)


def rounding_loss(
    weight: Floats, hessian: Floats, layout: BlockFormat
) -> Callable[[Floats], float]:
    """AWQ's loss |Q(W s) (x / s) - W x|^2, summed over the samples, as a function of s.

    The sum is tr(D H D^T) with D = Q(W s) / s - W and H = X^T X.
    """
    rows = weight[:: max(1, len(weight) // SAMPLED_ROWS)]

    def loss(s: Floats) -> float:
        errors = search(rows * s, layout).dequantize() / s - rows
        return float(np.einsum("rk,rk->", errors @ hessian, errors))

    return loss


def expected_loss(
    weight: Floats, hessian: Floats, layout: BlockFormat, damping: float
) -> Callable[[Floats], float]:
    """What GPTQ's loss will be, as a function of s, without running it.

    Column j adds R_jj^2 times its squared rounding error (see `quantize.gptq`), which is a twelfth
    of the block's squared step if errors spread evenly. Scaling divides R_jj by s_j.
    """
    squares = np.square(np.diagonal(damped_factor(hessian, damping)))
    columns = weight.shape[1]
    starts = np.arange(0, columns, layout.block)

    def loss(s: Floats) -> float:
        peaks = np.maximum.reduceat(np.abs(weight * s), starts, axis=1)
        steps = np.square(peaks / np.float32(layout.half)).sum(axis=0)
        return float((np.add.reduceat(squares / np.square(s), starts) * steps).sum()) / 12

    return loss
