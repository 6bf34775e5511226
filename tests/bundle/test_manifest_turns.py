"""The optional field `turns` of a manifest: what conversations a model was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.manifest import TURNS, Manifest, loads
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.cli import cli
from pulse_edge.errors import BundleError, ExportError


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    return open_bundle(bundle).manifest


def test_what_nobody_said_is_left_out(manifest: Manifest) -> None:
    assert manifest.turns is None
    assert b"turns" not in dumps(manifest)


@pytest.mark.parametrize("turns", TURNS)
def test_what_was_said_is_read_back(manifest: Manifest, turns: str) -> None:
    sealed = replace(manifest, turns=turns).sealed()
    assert loads(dumps(sealed)) == sealed
    assert sealed.seal != manifest.seal


@pytest.mark.parametrize("turns", ["", "First", "one", "first ", "x" * 1000, 1, True, ["first"]])
def test_another_word_is_refused(manifest: Manifest, turns: str) -> None:
    raw = dumps(replace(manifest, turns=turns).sealed())
    with pytest.raises(BundleError, match="turns") as caught:
        loads(raw)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("turns", TURNS)
def test_the_export_records_it(turns: str, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    words = ["export", str(checkpoint), str(tmp_path / "out"), "--turns", turns]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0
    bundle = open_bundle(tmp_path / "out")
    assert bundle.manifest.turns == turns
    assert "turns" in dict(describe_bundle(bundle))["trained on"] or turns == "first"


def test_the_export_refuses_another_word() -> None:
    pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
    from pulse_export import ExportOptions

    with pytest.raises(ExportError, match="turns 'all' is not one of first, several"):
        ExportOptions(turns="all")
