"""Quantized weights: error bounds, and the packed form as ONNX Runtime reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_edge.export.graph import Graph
from pulse_edge.export.precision import BITS, BLOCK_SIZES, PRECISIONS, quantize
from pulse_edge.export.targets.contrib import CPU, pack


def weights(rows: int, columns: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * scale).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9), columns=st.integers(1, 300), bits=st.sampled_from([4, 8]),
    block=st.sampled_from(BLOCK_SIZES), seed=st.integers(0, 1000), scale=st.sampled_from([1e-6, 1.0, 1e4]),
)  # fmt: skip
def test_error_is_within_half_a_step(rows: int, columns: int, bits: int, block: int, seed: int, scale: float) -> None:
    """Half a step of the block's scale; at the end of the range that has one code less, a whole step."""
    weight = weights(rows, columns, seed, scale)
    quantized = quantize(weight, bits, block)
    step = np.repeat(np.abs(quantized.scales), block, axis=1)[:, :columns]
    error = np.abs(quantized.dequantize() - weight)
    clipped = quantized.codes[:, :columns] == 2 * quantized.zero - 1
    assert (error <= np.where(clipped, 1.0, 0.5) * step * (1 + 1e-5)).all()
    assert quantized.codes.max() < 1 << bits


def test_values_on_the_grid_come_back_exactly() -> None:
    codes = np.random.default_rng(0).integers(-8, 8, (4, 64)).astype(np.float32)
    codes[:, ::32] = -8  # each block reaches the end of the range
    np.testing.assert_array_equal(quantize(codes * 0.25, 4, 32).dequantize(), codes * 0.25)


def test_all_codes_are_used_and_zero_is_exact() -> None:
    quantized = quantize(weights(64, 256, 1), 4, 32)
    assert set(np.unique(quantized.codes)) == set(range(16))
    with_zeros = weights(3, 64, 2)
    with_zeros[:, ::2] = 0
    assert (quantize(with_zeros, 4, 32).dequantize()[:, ::2] == 0).all()
    np.testing.assert_array_equal(quantize(np.zeros((2, 64), np.float32), 8, 32).dequantize(), 0)


def test_more_bits_and_smaller_blocks_err_less() -> None:
    weight = weights(32, 512, 3)
    error = {
        (b, k): np.square(quantize(weight, b, k).dequantize() - weight).mean() for b in (4, 8) for k in BLOCK_SIZES
    }
    for bits in (4, 8):
        assert error[bits, 32] < error[bits, 64] < error[bits, 128]
    for block in BLOCK_SIZES:
        assert error[8, block] < error[4, block] / 100


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("columns", "block"), [(64, 32), (256, 128), (200, 64), (72, 128)])
def test_onnx_runtime_multiplies_with_the_same_weights(bits: int, columns: int, block: int, tmp_path: Path) -> None:
    """`MatMulNBits` of the packed codes against the dequantized matrix; the CPU target quantizes activations to int8
    per block, whose error for values of unit size is about 1/254 of the largest each, summed over `columns`."""
    weight = weights(48, columns, 4)
    quantized = quantize(weight, bits, block)
    assert pack(quantized).shape == (48, -(-columns // block), block * bits // 8)
    graph = Graph(tmp_path / "one.onnx", CPU.opsets)
    graph.input("x", np.float32, [1, "rows", columns])
    graph.node("Identity", [CPU.emit_linear(graph, "x", quantized, None, "linear")], name="y")
    graph.output("y", np.float32, [1, "rows", 48])
    graph.save()
    x = np.random.default_rng(5).normal(0, 1, (1, 7, columns)).astype(np.float32)
    got = ort.InferenceSession(tmp_path / "one.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    expected = x @ quantized.dequantize().T
    assert np.linalg.norm(got - expected) < 0.01 * np.linalg.norm(expected)


def test_the_table_names_only_known_storages() -> None:
    for name, row in PRECISIONS.items():
        assert row.name == name
        assert {row.decoder, row.head, row.vision} <= {"fp32", "fp16", *BITS}
        assert row.block_size in (0, *BLOCK_SIZES)
