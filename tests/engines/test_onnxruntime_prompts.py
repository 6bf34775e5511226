"""Bundles with a second set of weights, which prompts run through; steps read what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pulse_edge.bundle import manifest as manifests
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.manifest import PREFILL_GRAPH
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.engines.onnxruntime import OnnxRuntimeEngine
from pulse_edge.engines.options import FEW_ROWS, EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import BundleError, ExportError

from support.fixture_types import Checkpoints

onnx = pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
HIDDEN, ROWS = 64, 50

Exported = Callable[..., Path]


@pytest.fixture(scope="module")
def exported(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported(**options)`: a bundle of the tiny checkpoint."""
    from pulse_export.pipeline import export

    made: dict[str, Path] = {}

    def make(**options: str) -> Path:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("two") / "bundle"
            export(checkpoints(), made[key], **options)  # type: ignore[arg-type]
        return made[key]

    return make


def opened(bundle: Path, **options: int) -> OnnxRuntimeEngine:
    engine = open_engine(open_bundle(bundle), EngineOptions(**({"threads": 1} | options)))  # type: ignore[arg-type]
    assert isinstance(engine, OnnxRuntimeEngine)
    return engine


def embeds(count: int = ROWS, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, HIDDEN)).astype(np.float32)


@pytest.mark.parametrize("chunk", [0, 16, 49, 50])
def test_all_rows_but_the_last_are_those_of_the_second_set(exported: Exported, chunk: int) -> None:
    """And the last one, with its logits, is the first set's over what they left in the cache."""
    x = embeds()
    both = opened(exported(precision="int4", prefill="w8a8"), prefill_chunk=chunk)
    prompts = opened(exported(precision="w8a8"), prefill_chunk=chunk)
    steps = opened(exported(precision="int4"))
    logits = both.prefill(x).copy()
    prompts.prefill(x[:-1])
    for name, rows in prompts.cached().items():
        np.testing.assert_array_equal(both.cached()[name][:, :, : ROWS - 1], rows)
    steps.restore(prompts.save(ROWS - 1), ROWS - 1)
    np.testing.assert_array_equal(logits, steps.prefill(x[-1:]))
    more = embeds(1, seed=1)
    np.testing.assert_array_equal(both.step(more).copy(), steps.step(more))


@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS])
def test_a_short_prompt_needs_one_set(exported: Exported, rows: int) -> None:
    both = opened(exported(precision="int4", prefill="w8a8"))
    steps = opened(exported(precision="int4"))
    np.testing.assert_array_equal(both.prefill(embeds(rows)), steps.prefill(embeds(rows)))


def scales_of(bundle: Path) -> dict[str, NDArray[np.float32]]:
    model = onnx.load(str(bundle / PREFILL_GRAPH))
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return {n.removeprefix("scale."): v for n, v in values.items() if n.startswith("scale.")}


def test_codes_of_a_prompt_are_its_keys_and_values_rounded_once(exported: Exported) -> None:
    """Attended in float, as with a float cache: not one of them is off."""
    x = embeds()
    coded = exported(precision="int4", prefill="w8a8", cache="int8")
    floats = opened(exported(precision="int4", prefill="w8a8"), prefill_chunk=0)
    codes = opened(coded, prefill_chunk=0)
    floats.prefill(x)
    codes.prefill(x)
    scales = scales_of(coded)
    for name, rows in floats.cached().items():
        rounded = np.clip(np.rint(rows / scales[name]), -128, 127)[:, :, :-1]
        np.testing.assert_array_equal(codes.cached()[name][:, :, :-1], rounded)


@pytest.mark.parametrize("chunk", [1, 7, 16, 40])
def test_later_chunks_attend_to_the_codes_of_earlier_ones(exported: Exported, chunk: int) -> None:
    """The first layer's keys and values depend on no other row; the others nearly agree."""
    x = embeds()
    path = exported(precision="int4", prefill="w8a8", cache="int8")
    whole, parts = opened(path, prefill_chunk=0), opened(path, prefill_chunk=chunk)
    expected, got = whole.prefill(x).copy(), parts.prefill(x).copy()
    for name, rows in whole.cached().items():
        apart = np.abs(parts.cached()[name].astype(int) - rows)
        assert apart.mean() < (1e-9 if name.startswith("0.") else 1.0)
    assert np.corrcoef(expected, got)[0, 1] > 0.999


def test_steps_read_the_codes_that_a_prompt_has_left(exported: Exported) -> None:
    path = exported(precision="int4", prefill="w8a8", cache="int8")
    codes, floats = opened(path), opened(exported(precision="int4", prefill="w8a8"))
    for engine in (codes, floats):
        engine.prefill(embeds())
    more = embeds(3, seed=2)
    for row in more:
        a, b = codes.step(row[None])[0].copy(), floats.step(row[None])[0].copy()
        assert np.corrcoef(a, b)[0, 1] > 0.995


@pytest.mark.parametrize("cache", ["float", "int8"])
def test_every_slot_has_its_prompt(exported: Exported, cache: str) -> None:
    path = exported(precision="int4", prefill="w8a8", cache=cache)
    one, several = opened(path), opened(path, slots=3)
    other, x = embeds(seed=3), embeds()
    several.prefill(other, slot=1)
    several.prefill(x, slot=2)
    one.prefill(x)
    for name, rows in one.cached().items():
        np.testing.assert_array_equal(several.cached(2)[name], rows)


def test_a_prompt_that_is_cancelled_leaves_the_cache_as_it_was(exported: Exported) -> None:
    engine = opened(exported(precision="int4", prefill="w8a8", cache="int8"), prefill_chunk=8)
    engine.prefill(embeds(12))
    cancellation = Cancellation()
    told: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        told.append(done)
        if len(told) == 3:
            cancellation.request()

    with pytest.raises(Cancelled):
        engine.prefill(embeds(), progress, cancellation=cancellation)
    assert (engine.length, sum(told)) == (12, 16)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "fp32"},
        {"precision": "w8a8"},
        {"precision": "int4", "target": "cuda"},
        {"precision": "int4", "target": "standard"},
    ],
)
def test_an_export_that_has_no_second_set_says_so(
    options: dict[str, str], checkpoints: Checkpoints, tmp_path: Path
) -> None:
    from pulse_export.pipeline import export

    with pytest.raises(ExportError, match=r"prefill w8a8 needs target cpu and precision int4 or"):
        export(checkpoints(), tmp_path / "out", prefill="w8a8", **options)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="prefill 'int2' is not one of w8a8"):
        export(checkpoints(), tmp_path / "out", prefill="int2")


def test_a_bundle_says_that_it_has_two_sets(exported: Exported) -> None:
    bundle = open_bundle(exported(precision="int4", prefill="w8a8"))
    assert "int4 (w8a8 for prompts)" in dict(describe_bundle(bundle))["precision"]
    assert {f"{PREFILL_GRAPH}", f"{PREFILL_GRAPH}.data"} <= {f.path for f in bundle.manifest.files}


@pytest.mark.parametrize(
    ("prefill", "target", "problem"),
    [("int3", "cpu", "precision.prefill is 'int3'"), ("w8a8", "cuda", "the target is cuda")],
)
def test_a_manifest_that_claims_what_cannot_be(
    exported: Exported, prefill: str, target: str, problem: str
) -> None:
    manifest = open_bundle(exported(precision="int4", prefill="w8a8")).manifest
    precision = replace(manifest.precision, prefill=prefill)
    altered = replace(manifest, precision=precision, target=target).sealed()  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=problem):
        manifests.loads(dumps(altered))


def test_a_bundle_without_its_second_set(exported: Exported, tmp_path: Path) -> None:
    """The manifest promises one, but lists none."""
    manifest = open_bundle(exported(precision="int4", prefill="w8a8")).manifest
    files = tuple(f for f in manifest.files if f.path != PREFILL_GRAPH)
    for entry in files:
        (tmp_path / entry.path).write_bytes(
            (exported(precision="int4", prefill="w8a8") / entry.path).read_bytes()
        )
    (tmp_path / "manifest.json").write_bytes(dumps(replace(manifest, files=files).sealed()))
    with pytest.raises(BundleError, match=r"lists no prefill\.onnx"):
        open_bundle(tmp_path)
