"""How far results are from what is expected."""

from __future__ import annotations

from typing import Any

import numpy as np


def relative(got: Any, expected: Any) -> float:
    """Largest difference over the largest expected value; arrays of one shape, or lists."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def relative_norm(got: Any, expected: Any) -> float:
    """Norm of the difference over the norm of the expected values."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))
