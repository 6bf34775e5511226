"""The optional field `tower` of a manifest: what Optimum exported, and how well."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.manifest import Manifest, TowerInfo, loads
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.errors import BundleError

from support.manifests import edit_manifest
from support.paths import ROOT

TOWER = TowerInfo("siglip_vision_model", "0.1.0", 3e-7)


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return open_bundle(bundle).manifest


@pytest.fixture
def bundle_copy(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


def set_tower(path: Path, fields: dict[str, Any]) -> None:
    """Write the record in its canonical place, before the seal."""

    def change(data: dict[str, Any]) -> None:
        seal = data.pop("seal")
        data.update(tower=fields, seal=seal)

    edit_manifest(path, change)


def test_a_tower_of_our_own_is_left_out(manifest: Manifest) -> None:
    assert manifest.tower is None
    assert "tower" not in json.loads(dumps(manifest))


def test_what_optimum_wrote_is_read_back(manifest: Manifest) -> None:
    vision = replace(manifest.model.vision, activation="other")
    sealed = replace(manifest, tower=TOWER, model=replace(manifest.model, vision=vision)).sealed()
    assert loads(dumps(sealed)) == sealed
    assert sealed.seal != manifest.seal


@pytest.mark.parametrize("error", [-1e-9, 1.1, float("nan"), float("inf")])
def test_an_error_that_cannot_be_is_refused(manifest: Manifest, error: float) -> None:
    raw = dumps(replace(manifest, tower=replace(TOWER, error=error)).sealed())
    with pytest.raises(BundleError, match=r"tower\.error is .*, outside 0 to 1"):
        loads(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"family": 1}, {"family": None}, {"optimum": ...}, {"error": "0"}, {"error": True},
        {"more": 1}, {"family": "x" * 20_000},
    ],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_other_records_are_refused(bundle_copy: Path, change: dict[str, Any]) -> None:
    fields = {k: v for k, v in (vars(TOWER) | change).items() if v is not ...}
    set_tower(bundle_copy, fields)
    with pytest.raises(BundleError, match="tower") as refused:
        open_bundle(bundle_copy)
    assert len(str(refused.value)) < 400


def test_only_a_tower_of_optimums_has_an_activation_of_its_own(bundle_copy: Path) -> None:
    edit_manifest(bundle_copy, lambda data: data["model"]["vision"].update(activation="other"))
    with pytest.raises(BundleError, match=r"activation is 'other', but there is no 'tower'"):
        open_bundle(bundle_copy)


def test_who_wrote_the_tower_is_said(bundle_copy: Path) -> None:
    set_tower(bundle_copy, dict(vars(TOWER)))
    opened = open_bundle(bundle_copy)
    words = dict(describe_bundle(opened))["vision"]
    assert words.endswith(
        "; siglip_vision_model by Optimum 0.1.0, within 3e-07 of the torch module"
    )
    answer = pulse_edge.load(bundle_copy, threads=1).ask(None, "Rate?", max_new_tokens=1)
    assert answer.provenance["tower"] == vars(TOWER)
    schema = json.loads((ROOT / "docs" / "answer.schema.json").read_text())
    jsonschema.validate(json.loads(json.dumps(answer.to_dict())), schema)
