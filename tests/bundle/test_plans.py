"""Plans in a bundle: which are accepted, which are stale. No TensorRT is needed."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from support.fixture_types import Bundles

pytest.importorskip("onnx", "1.19", reason="opset 24 is written by onnx 1.19 and newer")

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.plans import (
    INDEX,
    Library,
    PlanKey,
    available,
    load_library,
    open_plans,
    plan_directory,
    publish,
    staged,
)
from pulse_edge.bundle.sealed_folder import PLANS
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.cli import cli
from pulse_edge.errors import EngineError
from pulse_export.pipeline import export

KEY = PlanKey("tensorrt", "10.16.1", 87)


def plant(bundle: Bundle, key: PlanKey = KEY) -> Path:
    """Plans that are none, sealed."""
    with staged(bundle, key) as staging:
        for name in ("vision.plan", "decoder.plan"):
            (staging / name).write_bytes(name.encode())
        publish(
            bundle,
            key,
            staging,
            prefill_rows=64,
            logit_rows=8,
            views=5,
            step_profile=1,
            several_profile=2,
        )
    return plan_directory(bundle, key)


@pytest.fixture
def bundle(bundles: Bundles, tmp_path: Path) -> Bundle:
    copy = tmp_path / "bundle"
    shutil.copytree(bundles("int8", None, "standard"), copy)
    return open_bundle(copy)


def test_plans_are_found_by_their_key(bundle: Bundle) -> None:
    root = plant(bundle)
    assert (root.name, available(bundle)) == ("tensorrt-10.16.1-sm87", ["tensorrt-10.16.1-sm87"])
    index = open_plans(bundle, KEY).index
    assert (index.key, index.bundle, index.step_profile) == (KEY, bundle.digest, 1)
    assert sorted(p.name for p in (bundle.path / PLANS).iterdir()) == [
        root.name
    ]  # nothing staged is left
    assert open_bundle(bundle.path).digest == bundle.digest  # it is still the same bundle
    assert "tensorrt-10.16.1-sm87" in CliRunner().invoke(cli, ["info", str(bundle.path)]).output


def test_another_version_or_gpu_has_no_plans(bundle: Bundle) -> None:
    plant(bundle)
    for key in (
        replace(KEY, version="10.16.2"),
        replace(KEY, capability=89),
        replace(KEY, library="tensorrt_rtx"),
    ):
        with pytest.raises(
            EngineError,
            match=rf"no plans for {key} \(but for {KEY}\).*pulse-edge build {bundle.path}",
        ):
            open_plans(bundle, key)


def edit(root: Path, **fields: Any) -> None:
    data = json.loads((root / INDEX).read_text()) | fields
    (root / INDEX).write_text(json.dumps(data, indent=1) + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "decoder.plan").write_bytes(b"decoder.plaN"),
            "decoder.plan: altered",
        ),
        (lambda root: (root / "decoder.plan").write_bytes(b"short"), "5 bytes, plans.json says 12"),
        (lambda root: (root / "vision.plan").unlink(), "vision.plan: missing"),
        (lambda root: edit(root, prefill_rows=512), "edited by hand or damaged"),
        (lambda root: edit(root, schema_version=2), "schema version 2"),
        (lambda root: edit(root, extra=1), "unknown field 'extra'"),
        (lambda root: (root / INDEX).write_bytes(b"{"), "not valid JSON"),
        (lambda root: (root / INDEX).unlink(), "has no plans"),
    ],
)
def test_damaged_plans_are_refused(bundle: Bundle, damage: Any, message: str) -> None:
    damage(plant(bundle))
    with pytest.raises(EngineError, match=message) as refused:
        open_plans(bundle, KEY)
    assert f"pulse-edge build {bundle.path}" in str(refused.value) or "unknown field" in message


def test_stale_plans_are_refused(bundle: Bundle, bundles: Bundles) -> None:
    """Of the same names and the same device, but built from other graphs."""
    other = open_bundle(
        shutil.copytree(bundles("int4", None, "standard"), bundle.path.with_name("other"))
    )
    shutil.copytree(plant(other), plan_directory(bundle, KEY))
    with pytest.raises(
        EngineError, match=r"built from another bundle .*build them again: pulse-edge build"
    ):
        open_plans(bundle, KEY)
    moved = plan_directory(other, replace(KEY, capability=89))
    plan_directory(other, KEY).rename(moved)
    with pytest.raises(EngineError, match=rf"built for {KEY}"):
        open_plans(other, replace(KEY, capability=89))


def test_plans_replace_those_before(bundle: Bundle) -> None:
    root = plant(bundle)
    (root / "left.over").touch()
    assert not (plant(bundle) / "left.over").exists()


def test_an_interrupted_build_leaves_nothing(bundle: Bundle) -> None:
    def interrupted() -> None:
        with staged(bundle, KEY) as staging:
            (staging / "vision.plan").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((bundle.path / PLANS).iterdir()) == []


def test_an_export_replaces_a_bundle_with_plans(bundle: Bundle, checkpoint: Path) -> None:
    plant(bundle)
    export(checkpoint, bundle.path, precision="int4", target="standard", force=True)
    assert available(open_bundle(bundle.path)) == []


def test_libraries_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    libraries: tuple[tuple[Library, str], ...] = (
        ("tensorrt", "JetPack 7.2"),
        ("tensorrt_rtx", "pip install tensorrt-rtx"),
    )
    for name, install in libraries:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(EngineError, match=f"{name} is not installed .*{install}"):
            load_library(name)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))
    with pytest.raises(EngineError, match=r"tensorrt 10.3.0 has no KV cache .*10.15 or newer"):
        load_library("tensorrt")


def test_views(bundles: Bundles) -> None:
    spec = open_bundle(bundles()).manifest.model
    assert (
        spec.most_views == 1 + max(w * h for w, h in spec.image.grids) // spec.vision.image_size**2
    )
    assert replace(spec, image=replace(spec.image, aspect="pad")).most_views == 1


def test_an_index_is_canonical(bundle: Bundle) -> None:
    root = plant(bundle)
    assert dumps(open_plans(bundle, KEY).index) == (root / INDEX).read_bytes()
