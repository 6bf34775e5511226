"""The export as a whole: refusals, reproducibility, memory, and no half-made bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from support import tiny

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import MANIFEST
from pulse_edge.errors import CheckpointError, ExportError
from pulse_export import pipeline, transaction
from pulse_export.options import adapt
from pulse_export.pipeline import export
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.targets.registry import get_target

Bundles = Callable[..., Path]


def refused(*args: Any, **options: Any) -> str:
    with pytest.raises(ExportError) as caught:
        export(*args, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def features(bundle: Bundle, views: NDArray[np.float32]) -> NDArray[np.float32]:
    """By ONNX Runtime's CPU provider."""
    from pulse_edge.engines.options import EngineOptions
    from pulse_edge.engines.registry import open_engine

    encoded = open_engine(bundle, EngineOptions("cpu", threads=1)).encode(views)
    return np.asarray(encoded, np.float32)


@pytest.fixture
def views(bundle: Path) -> NDArray[np.float32]:
    """[2, 3, side, side]: pixels of two views, random."""
    side = open_bundle(bundle).manifest.model.vision.image_size
    return np.random.default_rng(0).standard_normal((2, 3, side, side), np.float32)


# -- what comes out


@pytest.mark.parametrize(
    ("precision", "block", "target", "expected"),
    [
        ("fp32", None, "cpu", ("fp32", "fp32", "fp32", "fp32", 0)),
        ("int8", None, "cpu", ("int8", "int8", "fp16", "fp32", 128)),
        ("int8", 32, "cpu", ("int8", "int8", "fp16", "fp32", 32)),
        ("int4", None, "cpu", ("int4", "int8", "fp16", "fp32", 32)),
        ("int4", 64, "cpu", ("int4", "int8", "fp16", "fp32", 64)),
        ("int4", 128, "cpu", ("int4", "int8", "fp16", "fp32", 128)),
        ("w8a8", None, "cpu", ("w8a8", "int8", "fp16", "fp32", 128)),
        ("fp16", None, "cuda", ("fp16", "fp16", "fp16", "fp16", 0)),
        ("int4", 32, "cuda", ("int4", "int8", "fp16", "fp16", 32)),
    ],
)
def test_the_manifest_says_what_was_made(
    bundles: Bundles,
    checkpoint: Path,
    precision: str,
    block: int | None,
    target: str,
    expected: tuple[Any, ...],
) -> None:
    from pulse_export.checkpoint import Checkpoint

    made = open_bundle(bundles(precision, block, target)).manifest
    p = made.precision
    assert (p.decoder, p.head, p.embeddings, p.io, p.block_size) == expected
    assert (p.name, made.target, p.kv_cache) == (precision, target, p.io)
    source = Checkpoint(checkpoint)
    assert made.model == source.spec
    assert made.checkpoint == source.info()
    assert made.tools.keys() == {"pulse-edge", "onnx", "numpy", "safetensors", "python"}


def test_a_head_of_its_own(bundles: Bundles, checkpoint: Path, tmp_path: Path) -> None:
    """Its codes are 4-bit, the rest stays as it was, and the logits are what those codes give."""
    from pulse_edge.engines.options import EngineOptions
    from pulse_edge.engines.registry import open_engine
    from pulse_export.checkpoint import Checkpoint
    from pulse_export.quantize.weights import quantize

    export(checkpoint, tmp_path / "out", precision="int8", head="int4")
    made, usual = open_bundle(tmp_path / "out"), open_bundle(bundles("int8"))
    assert (made.manifest.precision.decoder, made.manifest.precision.head) == ("int8", "int4")
    assert "int4 per block, int8 per block" in made.manifest.precision.recipe
    weight = Checkpoint(checkpoint).tensor("lm_head.weight")
    assert usual.size - made.size == pytest.approx(len(weight) * 128 / 2, rel=0.1)  # a block a row
    rows = np.random.default_rng(0).normal(0, 1, (9, weight.shape[1])).astype(np.float32)
    got, logits = (
        open_engine(b, EngineOptions("cpu", threads=1)).step(rows).copy() for b in (made, usual)
    )
    hidden = logits @ np.linalg.pinv(weight).T
    expected = hidden @ quantize(weight, 4, made.manifest.precision.block_size).dequantize().T
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max() < np.abs(got - logits).max()


@pytest.mark.parametrize(
    ("precision", "target", "tower", "expected"),
    [
        ("int4", "cuda", None, "fp16"),  # 8-bit MatMulNBits there is dequantize and cuBLAS
        ("int8", "cuda", None, "fp16"),
        ("int4", "cuda", "int8", "int8"),
        ("int8", "cuda", "int8", "int8"),
        ("int8", "cuda", "fp16", "fp16"),
        ("fp16", "cuda", None, "fp16"),
        ("fp16", "cuda", "int8", "int8"),
        ("int8", "cpu", None, "w8a8"),  # whole bytes, as before
        ("int4", "cpu", "int8", "w8a8"),
        ("w8a8", "cpu", "int8", "w8a8"),
        ("fp32", "cpu", "int8", "w8a8"),
        ("int4", "standard", None, "int8"),
        ("int4", "standard", "fp16", "fp16"),
        ("w8a8", "standard", None, "w8a8"),
        ("w8a8", "standard", "int8", "int8"),
        ("w8a8", "standard", "fp16", "fp16"),
        ("fp32", "standard", "int8", "int8"),
    ],
)
def test_what_a_tower_is_stored_as(
    precision: str,
    target: str,
    tower: str | None,
    expected: str,
) -> None:
    row = PRECISIONS[precision]
    adapted = adapt(get_target(target, row), row, tower)
    assert adapted.vision == expected
    assert (adapted.name, adapted.decoder, adapted.head) == (row.name, row.decoder, row.head)
    assert adapted.block_size or expected not in ("int8", "w8a8")


def test_a_tower_of_its_own(
    checkpoint: Path,
    bundles: Bundles,
    tmp_path: Path,
    views: NDArray[np.float32],
) -> None:
    """On the CPU provider: fp16, the default for CUDA, is closer to fp32's features than int8."""
    usual = open_bundle(bundles("int4", None, "cuda"))
    export(checkpoint, tmp_path / "int8", precision="int4", target="cuda", tower="int8")
    small = open_bundle(tmp_path / "int8")
    assert usual.manifest.precision.vision == "fp16"
    assert small.manifest.precision.vision == "int8"
    decoders = [b.file("decoder.onnx.data").read_bytes() for b in (usual, small)]
    assert decoders[0] == decoders[1]
    sizes = [b.file("vision.onnx.data").stat().st_size for b in (usual, small)]
    assert sizes[0] > 1.4 * sizes[1]  # the tiny tower's positions and patches are fp16 in both
    exact, half, eighth = (features(b, views) for b in (open_bundle(bundles()), usual, small))
    scale = np.abs(exact).max()
    assert np.abs(half - exact).max() < 0.005 * scale
    assert np.abs(half - exact).max() < np.abs(eighth - exact).max() / 2
    assert np.abs(eighth - exact).max() < 0.05 * scale


def test_a_tower_by_the_command_and_by_the_benchmark(checkpoint: Path, tmp_path: Path) -> None:
    from benchmarks.peers import ours
    from pulse_edge.cli import cli

    arguments = ["--precision", "int4", "--target", "cuda", "--tower", "int8"]
    done = CliRunner().invoke(cli, ["export", str(checkpoint), str(tmp_path / "out"), *arguments])
    assert done.exit_code == 0, done.output
    assert open_bundle(tmp_path / "out").manifest.precision.vision == "int8"
    for variant, tower in (("int4:128:cuda:tower8", "int8"), ("int4:128:cuda", "fp16")):
        ours.convert(checkpoint, tmp_path / tower, variant)
        assert open_bundle(tmp_path / tower).manifest.precision.vision == tower


@pytest.mark.parametrize(
    ("precision", "target", "tower"),
    [("w8a8", "standard", "fp16"), ("w8a8", "standard", "int8"), ("fp16", "cuda", "int8")],
)
def test_a_tower_that_differs_in_kind_from_the_decoder(
    checkpoint: Path, bundles: Bundles, tmp_path: Path, views: NDArray[np.float32],
    precision: str, target: str, tower: str,
) -> None:  # fmt: skip
    """A calibrated decoder beside a tower that takes no scales; a quantized tower in fp16."""
    from pulse_export.quantize.recipe import Recipe

    recipe = Recipe(samples=2) if precision == "w8a8" else None
    out = tmp_path / "out"
    export(checkpoint, out, precision=precision, target=target, tower=tower, calibration=recipe)
    made = open_bundle(out)
    assert (made.manifest.precision.decoder, made.manifest.precision.vision) == (precision, tower)
    assert made.manifest.precision.recipe.startswith("RTN symmetric")
    exact, got = (features(b, views) for b in (open_bundle(bundles()), made))
    assert np.abs(got - exact).max() < 0.05 * np.abs(exact).max()


def test_summary(checkpoint: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    totals: list[int] = []

    def progress(total: int) -> Callable[[int], None]:
        totals.append(total)
        return steps.append

    summary = export(checkpoint, tmp_path / "out", precision="int8", progress=progress)
    files = {p.name: p.stat().st_size for p in (tmp_path / "out").iterdir() if p.name != MANIFEST}
    assert summary.files == files
    assert summary.size == sum(files.values()) == open_bundle(tmp_path / "out").size
    assert totals == [summary.checkpoint_size]
    assert (
        sum(steps)
        == summary.checkpoint_size
        == 4 * open_bundle(tmp_path / "out").manifest.checkpoint.parameters
    )
    assert summary.path == str(tmp_path / "out")
    assert 0 < summary.seconds < 60
    assert 20e6 < summary.peak_memory < 4e9


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_exports_are_reproducible(
    checkpoints: Callable[..., Path], bundles: Bundles, tmp_path: Path, precision: str
) -> None:
    """Two exports are equal to the byte, and so is one of the same weights in shards."""
    first = bundles(precision)
    export(checkpoints(), tmp_path / "again", precision=precision)
    export(checkpoints(shards=3), tmp_path / "sharded", precision=precision)
    assert names(first) == names(tmp_path / "again") == names(tmp_path / "sharded")
    for name in names(first):
        assert (tmp_path / "again" / name).read_bytes() == (first / name).read_bytes(), name
        assert (tmp_path / "sharded" / name).read_bytes() == (first / name).read_bytes(), name


def test_tied_embeddings_are_exported_as_the_head(
    checkpoints: Callable[..., Path], bundles: Bundles, tmp_path: Path
) -> None:
    """A tied checkpoint runs as one that holds the same matrix twice."""
    import pulse_edge

    tensors = tiny.llava_weights(tied=True)
    path = Path(shutil.copytree(checkpoints(tied=True), tmp_path / "twice"))
    tiny.write_weights(path, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    config = json.loads((path / "config.json").read_text()) | {"tie_word_embeddings": False}
    tiny.write_json(path / "config.json", config)
    export(path, tmp_path / "out", precision="fp32")
    answers = [
        pulse_edge.load(b, threads=1).ask(None, "What is this?", max_new_tokens=12).token_ids
        for b in (bundles(tied=True), tmp_path / "out")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) > 0


# -- what is refused, before any work is done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "target cpu does not run fp16"),
        ({"precision": "fp32", "target": "cuda"}, "target cuda does not run fp32"),
        ({"precision": "int3"}, "precision 'int3' is not one of fp32, fp16, int8, int4"),
        ({"target": "tpu"}, "target 'tpu' is not one of cpu, cuda"),
        ({"head": "fp16"}, "head 'fp16' is not one of int8, int4"),
        ({"precision": "fp32", "head": "int4"}, "or fp32 quantizes no weights"),
        ({"tower": "fp16"}, "tower 'fp16' must be int8, or left out, for int8 on target cpu"),
        ({"tower": "fp16", "precision": "fp32", "target": "standard"}, "must be int8, or left out"),
        ({"tower": "int4", "target": "cuda"}, "tower 'int4' must be int8 or fp16, or left out"),
        ({"block_size": 16}, "block size 16 must be one of 32, 64, 128"),
        ({"precision": "fp32", "block_size": 32}, "block size 32 must be left out for fp32 on cpu"),
    ],
)
def test_combinations_are_refused_by_name(
    checkpoint: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    assert message in refused(checkpoint, tmp_path / "out", **options)
    assert names(tmp_path) == []


def test_a_checkpoint_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        export(tmp_path / "absent", tmp_path / "out")
    assert names(tmp_path) == []


def test_out_that_exists_needs_force(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    before = open_bundle(out).digest
    assert "--force" in refused(checkpoint, out, precision="int8")
    assert open_bundle(out).digest == before
    export(checkpoint, out, precision="int8", force=True)
    assert open_bundle(out).manifest.precision.name == "int8"
    assert names(tmp_path) == ["out"]


def test_force_replaces_bundles_only(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    homes: dict[str, Path] = {}
    for name in ("checkpoint", "web", "onnx", "noted", "nested"):
        homes[name] = tmp_path / name
        homes[name].mkdir()
    shutil.copytree(checkpoint, homes["checkpoint"], dirs_exist_ok=True)
    (homes["web"] / "manifest.json").write_text('{"name": "a web application"}')
    (homes["web"] / "index.html").write_text("precious")
    (homes["onnx"] / "decoder.onnx").write_text("somebody else's")
    (homes["onnx"] / "config.json").write_text("{}")
    shutil.copytree(bundle, homes["noted"], dirs_exist_ok=True)
    (homes["noted"] / "notes.txt").write_text("precious")
    shutil.copytree(bundle, homes["nested"] / "inner")
    file = tmp_path / "file"
    file.write_text("precious")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for home in (*homes.values(), file):
        message = refused(checkpoint, home, force=True)
        assert str(home) in message
        assert "--force replaces bundles only" in message
    assert "notes.txt" in refused(checkpoint, homes["noted"], force=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_force_replaces_damaged_bundles_and_empty_directories(
    checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    for name in ("damaged", "headless", "empty"):
        (tmp_path / name).mkdir()
    shutil.copytree(bundle, tmp_path / "damaged", dirs_exist_ok=True)
    (tmp_path / "damaged" / MANIFEST).write_text("damaged")
    shutil.copytree(bundle, tmp_path / "headless", dirs_exist_ok=True)
    (tmp_path / "headless" / MANIFEST).rename(tmp_path / "headless" / transaction.PENDING)
    for name in ("damaged", "headless", "empty"):
        assert "exists" in refused(checkpoint, tmp_path / name, precision="fp32")
        export(checkpoint, tmp_path / name, precision="fp32", force=True)
        assert open_bundle(tmp_path / name).digest == open_bundle(bundle).digest
    assert names(tmp_path) == ["damaged", "empty", "headless"]


def test_force_replaces_a_link_not_what_it_leads_to(
    checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    kept = Path(shutil.copytree(bundle, tmp_path / "kept"))
    (tmp_path / "out").symlink_to(kept)
    export(checkpoint, tmp_path / "out", precision="int8", force=True)
    assert not (tmp_path / "out").is_symlink()
    assert open_bundle(tmp_path / "out").manifest.precision.name == "int8"
    assert open_bundle(kept).digest == open_bundle(bundle).digest
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    assert "exists" in refused(checkpoint, tmp_path / "dangling")


def test_out_that_appears_meanwhile_is_not_replaced(
    checkpoint: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pipeline.write_files

    def slow(*args: Any) -> Any:
        shutil.copytree(bundle, tmp_path / "out")
        return write(*args)

    monkeypatch.setattr(pipeline, "write_files", slow)
    assert "exists" in refused(checkpoint, tmp_path / "out", precision="int8")
    assert open_bundle(tmp_path / "out").digest == open_bundle(bundle).digest
    assert names(tmp_path) == ["out"]


def test_places_that_are_none(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such directory" in refused(checkpoint, tmp_path / "absent" / "out")
    (tmp_path / "file").write_text("")
    assert "no such directory" in refused(checkpoint, tmp_path / "file" / "out")
    assert "exists" in refused(checkpoint, "/")
    monkeypatch.chdir(tmp_path)
    assert "exists" in refused(checkpoint, ".")
    odd = "[a] *é\n b"
    for _ in range(2):
        export(checkpoint, odd, precision="int8", force=True)
    assert open_bundle(odd).size > 0
    assert names(tmp_path) == sorted([odd, "file"])
