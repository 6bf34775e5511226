"""The index of the decoder's weights, from an export to the arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

import onnx

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH
from pulse_edge.bundle.tensors import TENSORS, has_tensors, open_tensors, read_index
from pulse_edge.errors import BundleError

from support.fixture_types import Bundles


@pytest.mark.parametrize(("precision", "block"), [("int4", 32), ("int8", 64), ("fp16", None)])
def test_tensors_are_those_of_the_graph(bundles: Bundles, precision: str, block: int) -> None:
    """All weights of the graph, byte for byte; only constants are not listed."""
    bundle = open_bundle(bundles(precision, block, "cuda"))
    graph = onnx.load(str(bundle.file(DECODER_GRAPH))).graph
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    with open_tensors(bundle) as file:
        assert {name for name in stored if name not in file.entries} <= {
            name for name in stored if name.startswith("const.")
        }
        assert "norm.weight" in file.entries
        for name in file.entries:
            assert file[name].dtype == stored[name].dtype
            assert np.array_equal(file[name], stored[name])
        with pytest.raises(BundleError, match="lists no nothing"):
            file["nothing"]


def test_other_targets_have_no_index(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert not has_tensors(opened)
    with pytest.raises(BundleError, match=r"exported without decoder\.tensors\.json"):
        read_index(opened)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema version 2, this pulse-edge reads 1"),
        ({"more": 1}, "unknown field 'more'"),
        ({"file": "vision.onnx.data"}, "does not lie in vision.onnx.data"),
    ],
)
def test_an_index_of_another_kind(
    bundles: Bundles, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    bundle = open_bundle(bundles("fp16", None, "cuda"))
    data = json.loads(bundle.file(TENSORS).read_bytes()) | change
    (tmp_path / TENSORS).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=message):
        read_index(Bundle(tmp_path, bundle.manifest))


@pytest.mark.parametrize(
    "field",
    [
        {"offset": -4096},
        {"offset": 1 << 40},
        {"offset": 1},
        {"dtype": "object"},
        {"shape": [-1, 4]},
        {"shape": [1 << 41]},
        {"shape": [1] * 9},
    ],
)
def test_a_tensor_that_does_not_fit_its_file(
    bundles: Bundles, tmp_path: Path, field: dict[str, Any]
) -> None:
    bundle = open_bundle(bundles("fp16", None, "cuda"))
    data = json.loads(bundle.file(TENSORS).read_bytes())
    data["tensors"][3] |= field
    (tmp_path / TENSORS).write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"export the checkpoint again$"):
        read_index(Bundle(tmp_path, bundle.manifest))


def test_no_json(bundles: Bundles, tmp_path: Path) -> None:
    bundle = open_bundle(bundles("fp16", None, "cuda"))
    (tmp_path / TENSORS).write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        read_index(Bundle(tmp_path, bundle.manifest))
