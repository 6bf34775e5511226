"""What the kernels must give: float64 over the same stored weights, and their layouts anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.engines.native.kernels import MOST_ROWS, TILE, ActivationLayout, Epilogue, Product

Array = NDArray[Any]


def order_of(layout: ActivationLayout, size: int) -> Array:
    """[size]: which element lies at each place of a row of activations."""
    if layout is ActivationLayout.PLAIN:
        return np.arange(size)
    if layout is ActivationLayout.FP16:  # of 32 a lane takes 2t, 2t+1 of each 8
        unit = [8 * j + 2 * t + e for t in range(4) for j in range(4) for e in range(2)]
    elif layout in (ActivationLayout.INT4, ActivationLayout.INT4_FINE):
        # A fragment of mma is a word of 8 weights: pairs (0, 4), (1, 5), (2, 6), (3, 7).
        words = list(range(16))
        if layout is ActivationLayout.INT4:  # word j of each of 4 chunks
            words = [4 * t + j for j in range(4) for t in range(4)]
        unit = [8 * word + e for word in words for e in (0, 4, 1, 5, 2, 6, 3, 7)]
    else:  # two fragments are words of 4 weights: pairs (0, 2), (1, 3)
        unit = []
        for pair in range(2):
            for t in range(4):
                for j in (2 * pair, 2 * pair + 1):
                    word = 4 * t + j if layout is ActivationLayout.INT8 else 4 * j + t
                    unit += [4 * word + e for e in (0, 2, 1, 3)]
    blocks = np.arange(0, size, len(unit))
    order: Array = (blocks[:, None] + np.array(unit)).reshape(-1)
    return order


def laid_out(x: Array, layout: ActivationLayout) -> Array:
    """Activations [rows, size] as a product reads them."""
    order = order_of(layout, x.shape[-1])
    factor = np.ones(x.shape[-1])
    if layout in (ActivationLayout.INT4, ActivationLayout.INT4_FINE):
        factor[1::2] = 1 / 16
    ordered: Array = (x.astype(np.float64) * factor)[..., order].astype(np.float16)
    return ordered


def tile_sums(x: Array) -> Array:
    """[rows, size / 16] float32."""
    sums: Array = x.astype(np.float64).reshape(len(x), -1, TILE).sum(-1).astype(np.float32)
    return sums


@dataclass(frozen=True)
class Weights:
    """A matrix as it is stored and as it is meant.

    Attributes:
        codes: [n, k * bits / 8] uint8, or [k, n] float16.
        scales: [n, k / block] float16; empty of 16 bits.
        values: [n, k] float64.
    """

    codes: Array
    scales: Array
    values: Array


def random_weights(product: Product, n: int, generator: np.random.Generator) -> Weights:
    """Outputs of activations near 1 are near 1."""
    if product.bits == 16:
        w = (generator.normal(size=(product.k, n)) / np.sqrt(product.k)).astype(np.float16)
        return Weights(w, np.zeros(0, np.float16), w.T.astype(np.float64))
    shape = (n, product.k)
    q = generator.integers(0, 1 << product.bits, shape, dtype=np.uint8)
    spread = (1 << product.bits) / 3.5 * np.sqrt(product.k)
    scales = generator.uniform(0.5, 1.5, (n, product.k // product.block)) / spread
    return stored(q, scales.astype(np.float16), product)


def stored(q: Array, scales: Array, product: Product) -> Weights:
    """Codes [n, k], one a byte, as `MatMulNBits` stores them."""
    zero = 1 << (product.bits - 1)
    values = (q.astype(np.float64) - zero) * np.repeat(scales.astype(np.float64), product.block, 1)
    codes = q if product.bits == 8 else (q[:, ::2] | q[:, 1::2] << 4)
    return Weights(codes.astype(np.uint8), scales, values)


@dataclass(frozen=True)
class GemvCase:
    """Operands of gemv.cu.

    Attributes:
        x: [rows, k] float16, times the gains of a norm if `normed`.
        squares: [rows, k / 16] float32 that the norm divides by; None without a norm.
        residual: [rows, n] float16.
        gain: [n] float16.
    """

    product: Product
    weights: tuple[Weights, ...]
    x: Array
    squares: Array | None
    residual: Array
    gain: Array
    x_factor: float
    epsilon: float = 1e-5

    @property
    def n(self) -> int:
        return len(self.weights[0].values)

    @property
    def rows(self) -> int:
        return len(self.x)


def random_case(
    product: Product, n: int, rows: int, normed: bool = True, seed: int = 0
) -> GemvCase:
    generator = np.random.default_rng(seed)
    matrices = 2 if product.epilogue is Epilogue.GATED else 1
    squares = generator.uniform(4, 30, (rows, product.k // TILE)).astype(np.float32)
    return GemvCase(
        product=product,
        weights=tuple(random_weights(product, n, generator) for _ in range(matrices)),
        x=generator.normal(size=(rows, product.k)).astype(np.float16),
        squares=squares if normed else None,
        residual=generator.normal(size=(rows, n)).astype(np.float16),
        gain=(1 + 0.2 * generator.normal(size=n)).astype(np.float16),
        x_factor=0.5 if normed else 1.0,
    )


def gemv_sums(case: GemvCase) -> list[Array]:
    """[rows, n] of each matrix, with the norm and the factor."""
    factor = np.full((case.rows, 1), case.x_factor)
    if case.squares is not None:
        mean = case.squares.astype(np.float64).sum(1, keepdims=True) / case.product.k
        factor = factor / np.sqrt(mean + case.epsilon)
    return [case.x.astype(np.float64) @ w.values.T * factor for w in case.weights]


def silu(x: Array) -> Array:
    activated: Array = x / (1 + np.exp(-x))
    return activated


def best_of(logits: Array) -> tuple[Array, Array]:
    """The largest of each row and its index, -1 where one is NaN or +infinity."""
    index = np.where(np.isnan(logits), np.inf, logits).argmax(-1)
    value = np.take_along_axis(logits, index[:, None], 1)[:, 0]
    bad = ~(value < np.inf)
    return np.where(bad, np.inf, value), np.where(bad, -1, index)


def padded(array: Array, rows: int = MOST_ROWS) -> Array:
    """As many rows as a workspace has; those not used are NaN."""
    fill = np.full((rows, *array.shape[1:]), np.nan, array.dtype)
    fill[: len(array)] = array
    return fill
