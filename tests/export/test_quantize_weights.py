"""Block quantization: error bounds, exact values, and codes as the engine reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_export import threads
from pulse_export.graph import Graph
from pulse_export.quantize.precision import BLOCK_SIZES, HEADS, PRECISIONS, STORAGES, TOWERS
from pulse_export.quantize.weights import QuantWeight, quantize
from pulse_export.targets import onnxruntime as target

Floats = NDArray[np.float32]
WEIGHTS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=140),
    elements=st.floats(-1e4, 1e4, width=32),
)


def noise(rows: int, columns: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, (rows, columns)).astype(np.float32)


def scale_of(q: QuantWeight) -> Floats:
    """The scale of every element [rows, columns]."""
    return np.repeat(np.abs(q.scales), q.block, axis=1)[:, : q.columns]


@settings(max_examples=150, deadline=None)
@given(WEIGHTS, st.sampled_from([4, 8]), st.sampled_from([16, *BLOCK_SIZES]))
def test_no_weight_moves_by_more_than_half_a_step(weight: Floats, bits: int, block: int) -> None:
    """A whole step at the one end of the code range that has no code: opposite to the block's
    largest weight.
    """
    q = quantize(weight, bits, block)
    rows, columns = weight.shape
    blocks = -(-columns // block)
    assert (q.codes.shape, q.scales.shape) == ((rows, blocks * block), (rows, blocks))
    assert q.codes.dtype == np.uint8
    assert q.scales.dtype == np.float32
    assert int(q.codes.max()) < 1 << bits
    back = q.dequantize()
    assert back.shape == weight.shape
    assert back.dtype == np.float32
    scale = scale_of(q)
    clipped = q.codes[:, :columns] == (1 << bits) - 1
    error = np.abs(back.astype(np.float64) - weight)
    slack = (
        1e-5 * scale * (1 << bits) + 2e-36
    )  # float32 arithmetic on codes up to 2^bits; blocks of next to nothing
    assert (error <= np.where(clipped, 1.0, 0.5) * scale + slack).all()


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.sampled_from([4, 8]), st.sampled_from(BLOCK_SIZES))
def test_the_largest_weight_of_a_block_is_kept(weight: Floats, bits: int, block: int) -> None:
    q = quantize(weight, bits, block)
    back = q.dequantize()
    for start in range(0, q.columns, block):
        part = weight[:, start : start + block]
        largest = np.abs(part).max(axis=1, keepdims=True)
        error = np.abs(back[:, start : start + block] - part)
        error[np.abs(part) < largest] = np.inf  # of two that are equally large one is kept
        assert (error.min(axis=1, keepdims=True) <= 1e-6 * largest + 2e-36).all()


@settings(max_examples=100, deadline=None)
@given(WEIGHTS, st.sampled_from([4, 8]), st.sampled_from(BLOCK_SIZES))
def test_unsigned_scales(weight: Floats, bits: int, block: int) -> None:
    """No scale is negative; blocks whose largest weight is, are as they were; the others keep
    theirs, at code 7.
    """
    q, before = quantize(weight, bits, block, signed=False), quantize(weight, bits, block)
    assert (q.scales >= 0).all()
    # Of a tiny positive block, the signed scale may be subnormal, and so 0; the unsigned one is 8 /
    # 7 of it.
    tiny = (before.scales == 0) & (q.scales < 1.2 * np.finfo(np.float32).tiny)
    kept = (before.scales > 0) | (q.scales == 0)
    assert (kept | tiny | (before.scales < 0)).all()
    same = np.repeat(kept, block, axis=1)
    np.testing.assert_array_equal(q.scales[kept], before.scales[kept])
    np.testing.assert_array_equal(q.codes[same], before.codes[same])
    slack = 1e-5 * scale_of(q) * (1 << bits) + 2e-36
    clipped = (q.codes[:, : q.columns] == (1 << bits) - 1) & same[:, : q.columns]
    error = np.abs(q.dequantize().astype(np.float64) - weight)
    assert (error <= np.where(clipped, 1.0, 0.5) * scale_of(q) + slack).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [32, 33, 70])
def test_zeros_and_padding_are_exactly_zero(bits: int, columns: int) -> None:
    weight = noise(6, columns)
    weight[2] = 0
    weight[4, :32] = 0
    q = quantize(weight, bits, 32)
    assert (q.dequantize()[2] == 0).all()
    assert (q.dequantize()[4, :32] == 0).all()
    assert (q.codes[:, columns:] == q.zero).all()
    assert np.isfinite(q.scales).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [1.0, -1.0, 3e-5, -2e4, 1e-30])
def test_a_constant_block_is_exact(bits: int, value: float) -> None:
    weight = np.full((3, 64), value, np.float32)
    np.testing.assert_allclose(quantize(weight, bits, 32).dequantize(), weight, rtol=1e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [1e-36, 1e-38, 1e-40, 1e-45])
def test_blocks_of_next_to_nothing(bits: int, value: float) -> None:
    """One subnormal weight among zeros once gave codes of undefined value."""
    weight = np.zeros((1, 32), np.float32)
    weight[0, 3] = value
    assert np.abs(quantize(weight, bits, 32).dequantize() - weight).max() <= 1.001e-36


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_representable_comes_back_and_every_code_is_used(bits: int, sign: int) -> None:
    half = 1 << (bits - 1)
    steps = np.arange(-half, half, dtype=np.float32)
    weight = sign * 0.125 * np.tile(steps, (2, 256 // len(steps)))
    q = quantize(weight, bits, 256)
    np.testing.assert_array_equal(q.dequantize(), weight)
    assert set(q.codes.ravel().tolist()) == set(range(1 << bits))
    assert (q.scales == sign * 0.125).all()


def test_four_bits_use_all_codes_on_noise_and_err_less_than_a_symmetric_grid() -> None:
    weight = noise(64, 1024)
    q = quantize(weight, 4, 32)
    assert np.bincount(q.codes.ravel(), minlength=16).min() > 0
    absmax = np.abs(weight.reshape(64, -1, 32)).max(axis=2, keepdims=True)
    grid = np.rint(weight.reshape(64, -1, 32) / (absmax / 7)) * (absmax / 7)
    symmetric = np.square(grid.reshape(weight.shape) - weight).mean()
    assert np.square(q.dequantize() - weight).mean() < 0.95 * symmetric


def test_smaller_blocks_and_more_bits_err_less() -> None:
    weight = noise(64, 1024)
    errors = [
        float(np.square(quantize(weight, bits, block).dequantize() - weight).mean())
        for bits, block in ((4, 128), (4, 64), (4, 32), (8, 128), (8, 32))
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[2] / 100  # sixteen times finer steps, blocks four times as long


def test_rows_are_quantized_alone_however_many_there_are() -> None:
    """Large weights go in pieces, over threads; the result does not show it."""
    weight = noise(1000, 2500)
    whole = quantize(weight, 4, 32)
    for rows in (slice(0, 1), slice(830, 850), slice(999, 1000)):
        part = quantize(np.ascontiguousarray(weight[rows]), 4, 32)
        np.testing.assert_array_equal(whole.codes[rows], part.codes)
        np.testing.assert_array_equal(whole.scales[rows], part.scales)


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_number_of_threads_does_not_show(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = noise(1500, 4100)
    expected = quantize(weight, 4, 128)
    monkeypatch.setattr(threads, "WORKERS", workers)
    got = quantize(weight, 4, 128)
    np.testing.assert_array_equal(got.codes, expected.codes)
    np.testing.assert_array_equal(got.scales, expected.scales)


def test_what_a_thread_raises_is_raised() -> None:
    def work(at: slice) -> None:
        raise MemoryError(at.start)

    with pytest.raises(MemoryError, match="0"):
        threads.over_rows(work, 10, 5)


def test_the_table() -> None:
    assert list(PRECISIONS) == ["fp32", "fp16", "int8", "int4", "w8a8"]
    for name, row in PRECISIONS.items():
        assert row.name == name == row.decoder
        assert bool(row.block_size) == STORAGES[row.decoder].quantized
        assert row.block_size in (0, *BLOCK_SIZES)
        assert row.storages <= STORAGES.keys()
        assert row.full == (name == "fp32")
    assert {*HEADS, *TOWERS} <= STORAGES.keys()


def test_the_roofline_knows_what_is_run_on_devices() -> None:
    """By the precision's name; fp32 is for checks."""
    from pulse_edge.measure.profiles import PROFILES

    assert {profile.precision for profile in PROFILES} == PRECISIONS.keys() - {"fp32"}


# -- as the engine reads it


def matmul(weight: QuantWeight, x: Floats, level: int, path: Path) -> Floats:
    """x W^T by ONNX Runtime, through the target's own packing and node."""
    ort = pytest.importorskip("onnxruntime")
    tested = replace(target.CPU, accuracy_level=level)
    graph = Graph(path / "one.onnx", tested.opsets)
    x_name = graph.input("x", np.float32, ["rows", weight.columns])
    graph.output(
        tested.emit_linear(graph, x_name, weight, None, "y"),
        np.float32,
        ["rows", weight.codes.shape[0]],
    )
    graph.save()
    session = ort.InferenceSession(str(path / "one.onnx"), providers=["CPUExecutionProvider"])
    y: Floats = session.run(None, {"x": x})[0]
    return y


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("columns", [32, 64, 129, 160, 250])
@pytest.mark.parametrize("block", BLOCK_SIZES)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_engine_reads_the_codes_as_we_mean_them(
    bits: int, block: int, columns: int, rows: int, tmp_path: Path
) -> None:
    """Level 0 multiplies the dequantized weight; level 4, which bundles use, also rounds x to 8
    bits a block.
    """
    x = noise(rows, columns, 1)
    q = quantize(noise(48, columns), bits, block)
    assert target.pack(q).shape == (48, -(-columns // block), block * bits // 8)
    exact = x.astype(np.float64) @ q.dequantize().astype(np.float64).T
    scale = np.abs(exact).max()
    assert np.abs(matmul(q, x, 0, tmp_path) - exact).max() < 2e-6 * scale
    # Rounding x moves each product by at most half a step of absmax / 127; the errors add as they
    # fall, not in phase.
    step = np.abs(x).max() / 127 / 2
    worst = step * np.abs(q.dequantize()).sum(axis=1).max()
    error = np.abs(matmul(q, x, 4, tmp_path) - exact).max()
    assert error <= worst
    assert error < 0.02 * scale


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("columns", [32, 129, 250])
def test_bytes_times_bytes(columns: int, rows: int, tmp_path: Path) -> None:
    """Each row of x is rounded with a scale of its own: a row a thousand times as large costs the
    others nothing.
    """
    x, q = noise(rows, columns, 1), quantize(noise(48, columns), target.BYTE_BITS, columns)
    x[0] *= 1000
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    got, exact = (
        matmul(q, x, 0, tmp_path),
        x.astype(np.float64) @ q.dequantize().astype(np.float64).T,
    )
    scale = np.abs(exact).max(axis=1)
    rounded = (np.rint(x / step) * step) @ q.dequantize().T
    assert (np.abs(got - rounded).max(axis=1) < 1e-5 * scale).all()
    assert (np.abs(got - exact).max(axis=1) < 0.02 * scale).all()
    assert not matmul(q, 0 * x, 0, tmp_path).any()  # no scale to divide by


def test_bytes_do_not_saturate(tmp_path: Path) -> None:
    """The largest products there are, all of one sign, in pairs: x86 without VNNI adds two of them
    in 16 bits.
    """
    q = quantize(np.full((48, 256), -1, np.float32), target.BYTE_BITS, 256)
    assert (q.codes == 0).all()
    for sign in (1, -1):
        x = np.full((5, 256), sign, np.float32)
        np.testing.assert_allclose(
            matmul(q, x, 0, tmp_path), np.full((5, 48), -256.0 * sign), rtol=1e-5
        )


@pytest.mark.parametrize("bits", [4, 8])
def test_one_wrong_nibble_would_show(bits: int, tmp_path: Path) -> None:
    """That the comparison above sees order: each column's unit vector reads back that column."""
    q = quantize(noise(16, 70), bits, 32)
    eye = np.eye(70, dtype=np.float32)
    np.testing.assert_allclose(matmul(q, eye, 0, tmp_path).T, q.dequantize(), rtol=1e-6, atol=1e-7)
