"""What a product must give: float64 over the same quantized weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.gemv.kernels import BLOCK

Array = NDArray[Any]
MOST_ERROR = 2e-3  # relative, in the 2-norm; fp16 activations alone give about 4e-4


@dataclass(frozen=True)
class Problem:
    """Arguments of the kernel.

    Attributes:
        w: [n, k / 2] uint8, two weights a byte, the low nibble first.
        scales: [n, k / 128] float16.
        x: [rows, k] float16.
        norm: [k] float16, gains of RMSNorm.
        residual: [rows, n] float16.
    """

    w: Array
    scales: Array
    x: Array
    norm: Array
    residual: Array


def random_scales(generator: np.random.Generator, count: int) -> Array:
    """Small enough that fp16 holds the activations of 32 layers with random weights."""
    return generator.uniform(0.0005, 0.003, count).astype(np.float16)


def random_problem(n: int, k: int, rows: int, seed: int = 0) -> Problem:
    generator = np.random.default_rng(seed)
    return Problem(
        w=generator.integers(0, 256, (n, k // 2), dtype=np.uint8),
        scales=random_scales(generator, n * k // BLOCK).reshape(n, -1),
        x=generator.normal(size=(rows, k)).astype(np.float16),
        norm=(1 + 0.1 * generator.normal(size=k)).astype(np.float16),
        residual=generator.normal(size=(rows, n)).astype(np.float16),
    )


def reference(problem: Problem, norm: bool) -> Array:
    """[rows, n] float64: with RMSNorm before, or with the residual added after.

    Normalized activations are rounded to float16 before the gain, as in PyTorch's LlamaRMSNorm.
    """
    x = problem.x.astype(np.float64)
    if norm:
        normalized = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
        x = normalized.astype(np.float16).astype(np.float64) * problem.norm.astype(np.float64)
    nibbles = np.stack([problem.w & 15, problem.w >> 4], axis=-1).reshape(len(problem.w), -1)
    scales = np.repeat(problem.scales.astype(np.float64), BLOCK, axis=1)
    y = x @ ((nibbles.astype(np.float64) - 8) * scales).T
    return y if norm else y + problem.residual.astype(np.float64)


def relative_error(y: Array, expected: Array) -> float:
    """In the 2-norm; NaN where an output was not written."""
    return float(np.linalg.norm(y.astype(np.float64) - expected) / np.linalg.norm(expected))
