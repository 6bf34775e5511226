"""GPTQ against the paper's algorithm, written out column by column with an explicit inverse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_export.quantize.gptq import Compensation, damped_factor
from pulse_export.quantize.search import BlockFormat, search, searched_scales
from pulse_export.quantize.statistics import hessian, output_error

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def inputs(tokens: int, columns: int, seed: int = 0) -> Floats:
    """Correlated, with a few channels that are much larger than the rest."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (tokens, columns)) @ rng.normal(0, columns**-0.5, (columns, columns))
    x[:, rng.permutation(columns)[: columns // 8]] *= 6
    return x.astype(np.float32)


def weights(rows: int, columns: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.05, (rows, columns)).astype(np.float32)


def papers(
    weight: Floats, moments: Floats, layout: BlockFormat, damping: float, order: list[int] | None
) -> Doubles:
    """Algorithm 1 of arXiv 2210.17323 in float64: U from the inverse, one column at a time.

    With an order, scales are those of the untouched weights. Otherwise they are found when the walk
    reaches a block, from its weights as they are then, as the authors' code does with groups.
    """
    columns = weight.shape[1]
    order = order if order is not None else []
    walk = order or list(range(columns))
    h = moments.astype(np.float64)[np.ix_(walk, walk)]
    h[np.diag_indices(columns)] += damping * np.diagonal(h).mean()
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    w = weight.astype(np.float64)[:, walk]
    counts = 1 / np.diagonal(upper) ** 2  # what a column's own error costs
    spread = np.empty(columns, np.float32)
    spread[walk] = counts
    scales = searched_scales(weight, layout, spread).astype(np.float64)
    rounded = np.zeros_like(w)
    for j, column in enumerate(walk):
        block = column // layout.block
        if not order and column % layout.block == 0:
            stop = min(j + layout.block, columns)
            now = w[:, j:stop].astype(np.float32)
            scales[:, block] = searched_scales(now, layout, spread[j:stop])[:, 0]
        scale = scales[:, block]
        codes = np.divide(w[:, j], scale, out=np.zeros_like(scale), where=scale != 0)
        rounded[:, j] = np.clip(np.rint(codes), -layout.half, layout.half - 1) * scale
        error = (w[:, j] - rounded[:, j]) / upper[j, j]
        w[:, j:] -= np.outer(error, upper[j, j:])
    back = np.empty_like(rounded)
    back[:, walk] = rounded
    return back


def ours(
    weight: Floats, moments: Floats, layout: BlockFormat, damping: float, order: list[int] | None
) -> Floats:
    walk = None if order is None else np.array(order, np.int64)
    ordered = moments if walk is None else moments[np.ix_(walk, walk)]
    return Compensation(weight, damped_factor(ordered, damping), layout, walk).run().dequantize()


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("columns", "block", "bits"),
    [(64, 32, 4), (96, 64, 4), (70, 32, 4), (128, 128, 4), (40, 40, 8), (33, 16, 4), (160, 32, 8)],
)
def test_it_is_the_papers_algorithm(
    columns: int, block: int, bits: int, signed: bool, act_order: bool
) -> None:
    weight = weights(7, columns)
    moments = hessian([inputs(3 * columns, columns)], "w")
    order = None
    if act_order:
        order = np.argsort(-np.diagonal(moments), kind="stable").tolist()
    layout = BlockFormat(bits, block, signed)
    got = ours(weight, moments, layout, 0.01, order)
    np.testing.assert_allclose(got, papers(weight, moments, layout, 0.01, order), atol=1e-5)


@pytest.mark.parametrize("damping", [1e-4, 0.01, 0.1, 1.0])
def test_the_damping_is_the_papers(damping: float) -> None:
    weight, layout = weights(5, 64), BlockFormat(4, 32)
    moments = hessian([inputs(100, 64)], "w")
    got = ours(weight, moments, layout, damping, None)
    np.testing.assert_allclose(got, papers(weight, moments, layout, damping, None), atol=1e-5)


def test_the_factor_is_upper_triangular_and_of_the_damped_hessian() -> None:
    moments = hessian([inputs(50, 24)], "w")
    factor = damped_factor(moments, 0.02)
    assert (np.tril(factor, -1) == 0).all()
    expected = moments + 0.02 * np.diagonal(moments).mean() * np.eye(24)
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("block", [32, 64, 128])
def test_outputs_err_less_than_rounded_to_nearest(block: int) -> None:
    weight, layout = weights(48, 256), BlockFormat(4, block)
    x = inputs(1000, 256)
    moments = hessian([x[:600]], "w")
    seen = hessian([x[600:]], "w")  # other tokens than the recipe saw
    nearest = output_error(weight, search(weight, layout).dequantize(), seen)
    order = np.argsort(-np.diagonal(moments), kind="stable").tolist()
    assert output_error(weight, ours(weight, moments, layout, 0.01, order), seen) < nearest / 2


def test_without_correlations_every_weight_goes_to_the_nearest_code() -> None:
    weight, layout = weights(9, 96), BlockFormat(4, 32)
    got = ours(weight, np.eye(96, dtype=np.float32), layout, 0.01, None)
    np.testing.assert_allclose(got, search(weight, layout).dequantize(), atol=1e-6)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    x = inputs(200, 64)
    x[:, 5] = 0
    x[:, 40:] = 0
    weight, layout = weights(6, 64), BlockFormat(4, 32)
    got = ours(weight, hessian([x], "w"), layout, 0.01, None)
    assert np.isfinite(got).all()
    assert output_error(weight, got, hessian([x], "w")) < 0.02
