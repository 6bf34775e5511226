"""The int8 KV cache: contents, rewinding, verification, chunks and cost."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.engines.onnxruntime import OnnxRuntimeEngine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import ExportError
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.quantize import cache

from support.fixture_types import Bundles
from support.numbers import relative_norm

Floats = NDArray[np.float32]


def opened(path: Path, chunk: int = 0) -> OnnxRuntimeEngine:
    engine = open_engine(open_bundle(path), EngineOptions(threads=1, prefill_chunk=chunk))
    assert isinstance(engine, OnnxRuntimeEngine)
    return engine


def embeds(path: Path, count: int, seed: int = 0) -> Floats:
    """Of random text: the scales are for what a model reads, not for noise of another size."""
    spec = open_bundle(path).manifest.model.text
    table = np.fromfile(path / "embeddings.bin", np.float32).reshape(-1, spec.hidden)
    return table[np.random.default_rng(seed).integers(3, spec.vocab, count)]


@pytest.fixture(scope="module")
def both(bundles: Bundles) -> tuple[Path, Path]:
    """fp32 weights with either cache, so that the difference is the cache's."""
    return bundles(), bundles(cache="int8")


def test_it_holds_the_float_caches_keys_and_values(both: tuple[Path, Path]) -> None:
    """Codes are right to half a step in layer 0, whose input is the same in both bundles."""
    plain, small = (opened(path) for path in both)
    for engine in (plain, small):
        engine.prefill(embeds(both[0], 50))
    model = onnx.load(both[1] / DECODER_GRAPH, load_external_data=False)
    scales = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.name.startswith("scale.")
    }
    assert len(scales) == 4
    for part in ("0.key", "0.value"):
        expected, codes = plain.cached()[part], small.cached()[part]
        assert codes.dtype == np.int8
        assert codes.shape == expected.shape == (1, 4, 50, 16)
        assert np.abs(codes).max() > 60, "scales that waste a bit"
        held = np.clip(expected, -127 * scales[f"scale.{part}"], 127 * scales[f"scale.{part}"])
        assert (
            np.abs(codes * scales[f"scale.{part}"] - held) <= 0.5001 * scales[f"scale.{part}"]
        ).all()


def test_it_costs_little_and_something(both: tuple[Path, Path]) -> None:
    plain, small = (opened(path).step(embeds(both[0], 60)) for path in both)
    assert 1e-4 < relative_norm(small, plain) < 0.03  # 0.008 is measured
    np.testing.assert_array_equal(small.argmax(1), plain.argmax(1))


def test_rewinding_verifying_and_pieces(both: tuple[Path, Path]) -> None:
    """Rows are rounded one by one, so all ways to fill a cache give the same contents."""
    x, engine = embeds(both[0], 80), opened(both[1])
    every = engine.step(x).copy()
    written = {name: held.copy() for name, held in engine.cached().items()}
    engine.rewind(40)
    engine.step(embeds(both[0], 7, seed=1))  # speculated, and rejected
    engine.rewind(40)
    single = np.concatenate([engine.step(row[None]).copy() for row in x[40:]])
    assert relative_norm(single, every[40:]) < 5e-3
    pieces = opened(both[1], chunk=9)
    assert relative_norm(pieces.prefill(x), every[-1]) < 5e-3
    for name, codes in written.items():
        for other in (engine, pieces):
            assert np.abs(other.cached()[name].astype(int) - codes).max() <= 1


def test_a_quarter_of_the_memory(both: tuple[Path, Path]) -> None:
    plain, small = (
        sum(v.numpy().nbytes for v in opened(path).cache.values.values()) for path in both
    )
    assert plain == 4 * small == 2 * 2 * 4 * 512 * 16 * 4


def test_the_rest_of_the_bundle_is_the_same(both: tuple[Path, Path]) -> None:
    plain, small = (open_bundle(path).manifest for path in both)
    assert (plain.precision.kv_cache, small.precision.kv_cache) == ("fp32", "int8")
    differ = {a.path for a, b in zip(plain.files, small.files, strict=True) if a.sha256 != b.sha256}
    assert differ == {DECODER_GRAPH}


def test_scales_have_room_and_pairs_share_them() -> None:
    peaks = np.array([[1, 2, 3, 0], [8, 0, 0, 0]], np.float32)
    step = np.float32(cache.ROOM / cache.CODES)
    keys = cache.scales_of_peaks(peaks, "0.key")[0, :, 0]
    np.testing.assert_allclose(keys, np.array([[3, 2] * 2, [8, 8e-6] * 2]) * step)
    np.testing.assert_allclose(
        cache.scales_of_peaks(peaks, "0.value")[0, 0, 0], np.array([1, 2, 3, 8e-6]) * step
    )
    assert (cache.scales_of_peaks(0 * peaks, "0.key") > 0).all()


def test_only_for_the_cpu(checkpoint: Path, tmp_path: Path) -> None:
    for options in ({"target": "cuda", "cache": "int8", "precision": "fp16"}, {"cache": "int4"}):
        with pytest.raises(
            ExportError,
            match=re.escape("is not one of float, int8, of which int8 needs target cpu"),
        ):
            export(checkpoint, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_context_shorter_than_the_calibration(
    checkpoint: Path, bundles: Bundles, tmp_path: Path
) -> None:
    """What is seen is cut to what the cache holds."""
    short = bundles(cache="int8", context=32)
    assert open_bundle(short).manifest.precision.kv_cache == "int8"
    assert opened(short).prefill(embeds(short, 20)).shape == (512,)


def test_grouped_heads(bundles: Bundles) -> None:
    paths = bundles(kv_heads=2), bundles(kv_heads=2, cache="int8")
    plain, small = (opened(path).step(embeds(paths[0], 40)) for path in paths)
    assert relative_norm(small, plain) < 0.03


def test_what_it_reads_is_the_checkpoint(checkpoint: Path, both: tuple[Path, Path]) -> None:
    peaks = cache.cache_peaks(
        Bundle(both[0], open_bundle(both[0]).manifest), Checkpoint(checkpoint)
    )
    assert peaks.keys() == {f"{layer}.{part}" for layer in range(2) for part in ("key", "value")}
    assert all(p.shape == (4, 16) and p.min() > 0 for p in peaks.values())
