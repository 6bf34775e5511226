"""Scales by search: never worse than the largest weight's, stored as targets store them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_export.quantize.search import BlockFormat, search, searched_scales
from pulse_export.quantize.weights import quantize

Floats = NDArray[np.float32]


def noise(rows: int, columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, (rows, columns)).astype(np.float32)


def squared(weight: Floats, back: Floats, importance: Floats | None = None) -> float:
    errors = np.square(weight.astype(np.float64) - back)
    return float((errors if importance is None else errors * importance).sum())


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize("columns", [128, 200])
def test_the_error_is_never_above_that_of_the_largest_weights_scale(
    columns: int, block: int, bits: int, signed: bool
) -> None:
    weight = noise(40, columns)
    plain = squared(weight, quantize(weight, bits, block, signed=signed).dequantize())
    found = squared(weight, search(weight, BlockFormat(bits, block, signed)).dequantize())
    assert found < plain


def test_four_bits_of_noise_gain_a_tenth() -> None:
    weight = noise(64, 1024)
    plain = squared(weight, quantize(weight, 4, 32).dequantize())
    assert squared(weight, search(weight, BlockFormat(4, 32)).dequantize()) < 0.9 * plain


def test_it_finds_what_trying_thousands_of_scales_finds() -> None:
    weight, layout = noise(100, 32), BlockFormat(4, 32)
    found = np.square(weight - search(weight, layout).dequantize()).sum(axis=1)
    peaks = np.abs(weight).max(axis=1, keepdims=True)
    least = np.full(len(weight), np.inf)
    for step in np.linspace(-0.2, 0.2, 1001):
        scale = (peaks * step).astype(np.float32)
        if not step:
            continue
        codes = np.clip(np.rint(weight / scale), -8, 7)
        least = np.minimum(least, np.square(weight - codes * scale).sum(axis=1))
    assert found.sum() < 1.05 * least.sum()


def test_important_inputs_err_less() -> None:
    weight, layout = noise(50, 64), BlockFormat(4, 64)
    importance = np.ones(64, np.float32)
    importance[:8] = 100
    blind = search(weight, layout).dequantize()
    aware = search(weight, layout, importance).dequantize()
    assert squared(weight, aware, importance) < 0.8 * squared(weight, blind, importance)


@pytest.mark.parametrize("scale_type", [np.float32, np.float16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("size", [1e-7, 1e-4, 1.0, 1e4])
def test_scales_are_those_that_the_bundle_stores(
    size: float, signed: bool, scale_type: type[np.generic]
) -> None:
    weight = noise(20, 96) * np.float32(size)
    weight[3] = 0
    layout = BlockFormat(4, 32, signed, scale_type)
    scales = search(weight, layout).scales
    np.testing.assert_array_equal(scales.astype(scale_type).astype(np.float32), scales)
    if not signed:  # TensorRT refuses a scale of zero
        kind: Any = np.finfo(scale_type)
        assert (scales >= kind.smallest_subnormal).all()
    assert np.isfinite(search(weight, layout).dequantize()).all()


def test_codes_are_nearest_to_the_stored_scales() -> None:
    """Not to the ones before they were rounded to float16."""
    weight = noise(30, 64) * np.float32(1e-3)
    found = search(weight, BlockFormat(4, 32, True, np.float16))
    grid = np.arange(-8, 8, dtype=np.float32)
    scales = np.repeat(found.scales, 32, axis=1)
    nearest = np.abs(weight[..., None] - grid * scales[..., None]).min(axis=2)
    np.testing.assert_allclose(np.abs(weight - found.dequantize()), nearest, atol=1e-9)


@pytest.mark.parametrize("columns", [1, 31, 33, 100])
def test_the_tail_is_padded_with_zeros(columns: int) -> None:
    found = search(noise(4, columns), BlockFormat(4, 32))
    assert found.codes.shape == (4, -(-columns // 32) * 32)
    assert (found.codes[:, columns:] == found.zero).all()
    assert found.dequantize().shape == (4, columns)


def test_rows_do_not_depend_on_each_other() -> None:
    weight, layout = noise(700, 600), BlockFormat(4, 32)
    whole = searched_scales(weight, layout)
    np.testing.assert_array_equal(whole[650:], searched_scales(weight[650:], layout))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-38, 1e-20, 1e30])
def test_extreme_weights_give_finite_codes(value: float) -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[0, 3] = value
    found = search(weight, BlockFormat(4, 32))
    assert np.isfinite(found.dequantize()).all()
    assert np.abs(found.dequantize() - weight).max() <= 0.1 * value + 1e-36
