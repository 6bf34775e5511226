"""What a recipe has to know of the input of a matrix: X^T X and mean |x|."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pulse_edge.errors import ExportError
from pulse_export.checkpoint import Floats


def hessian(inputs: Sequence[Floats], name: str) -> Floats:
    """X^T X float32 [columns, columns] over all tokens.

    It is the Hessian of the squared error of the outputs, up to a factor of 2 that changes nothing.

    Args:
        inputs: X [tokens, columns] of each sample.
        name: of the matrix, for the error.

    Raises:
        ExportError: it is not finite.
    """
    total = np.zeros((inputs[0].shape[1],) * 2, np.float32)
    for x in inputs:
        total += x.T @ x
    if not np.isfinite(total).all():
        raise ExportError(
            f"the inputs of {name} are not finite on the calibration data; "
            "check the checkpoint with --precision fp32, or give other pages"
        )
    return total


def mean_magnitudes(inputs: Sequence[Floats]) -> Floats:
    """Mean |x| float32 [columns] over all tokens."""
    total = np.zeros(inputs[0].shape[1], np.float64)
    for x in inputs:
        total += np.abs(x).sum(axis=0, dtype=np.float64)
    return (total / sum(map(len, inputs))).astype(np.float32)


def output_error(weight: Floats, rounded: Floats, moments: Floats) -> float:
    """Squared error of the outputs X W^T over their own square, from X^T X."""
    errors = weight - rounded
    error = float(np.einsum("rk,rk->", errors @ moments, errors, dtype=np.float64))
    whole = float(np.einsum("rk,rk->", weight @ moments, weight, dtype=np.float64))
    return max(error, 0.0) / whole if whole > 0 else 0.0
