"""The graph builder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

import onnx

from pulse_export.graph import INLINE_BYTES, Graph

OPSETS = {"": 21}


def read(path: Path) -> Any:
    return onnx.load(path, load_external_data=False)


def test_standard_operators_pass_the_checker_and_run(tmp_path: Path) -> None:
    """A small graph with inline, shared and external weights, checked by ONNX and run by ONNX
    Runtime.
    """
    ort = pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).normal(size=(32, 48)).astype(np.float32)
    graph = Graph(tmp_path / "g.onnx", OPSETS)
    x = graph.input("x", np.float32, ["n", 32])
    y = graph.node("MatMul", [x, graph.weight("w", weight)], name="product")
    y = graph.node("Add", [y, graph.constant(np.array([1], np.float32))], name="sum")
    y = graph.node("Mul", [y, graph.constant(np.array([1], np.float32))], name="same")
    y = graph.node(
        "Slice", [y, *(graph.constant(np.array([v], np.int64)) for v in (0, 5, 1, 1))], name="out"
    )
    graph.output(y, np.float32, ["n", 5])
    files = graph.save()
    assert [f.name for f in files] == ["g.onnx", "g.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "g.onnx"), full_check=True)
    values = np.random.default_rng(1).normal(size=(3, 32)).astype(np.float32)
    got = ort.InferenceSession(str(tmp_path / "g.onnx"), providers=["CPUExecutionProvider"]).run(
        None, {"x": values}
    )[0]
    np.testing.assert_allclose(got, (values @ weight + 1)[:, :5], rtol=1e-5)
    # One float, int64 0, 5 and 1: what was asked for twice is there once.
    assert len(read(tmp_path / "g.onnx").graph.initializer) == 5


def test_no_data_file_without_large_weights(tmp_path: Path) -> None:
    graph = Graph(tmp_path / "g.onnx", OPSETS)
    x = graph.input("x", np.float32, [1])
    graph.output(
        graph.node(
            "Add", [x, graph.weight("w", np.zeros(INLINE_BYTES // 4, np.float32))], name="y"
        ),
        np.float32,
        ["n"],
    )
    assert [f.name for f in graph.save()] == ["g.onnx"]
    assert [f.name for f in tmp_path.iterdir()] == ["g.onnx"]


def test_constants_are_shared_by_value_shape_and_type(tmp_path: Path) -> None:
    graph = Graph(tmp_path / "g.onnx", OPSETS)
    made = [
        graph.constant(v)
        for v in (
            np.array([1], np.int64),
            np.array([1], np.int64),
            np.array([1], np.int32),
            np.array([[1]], np.int64),
            np.array(1, np.int64),
            np.array([2], np.int64),
            np.array([1], np.int64),
        )
    ]
    assert made[0] == made[1] == made[6]
    assert len(set(made)) == 5


def test_two_nodes_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    graph = Graph(tmp_path / "g.onnx", OPSETS)
    x = graph.input("x", np.float32, [1])
    graph.node("Neg", [x], name="y")
    with pytest.raises(ValueError, match="two nodes named 'y'"):
        graph.node("Abs", [x], name="y")


def test_external_weights_are_what_was_given(tmp_path: Path) -> None:
    """Of every type, transposed views and odd sizes included."""
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[Any]] = {
        "floats": rng.normal(size=(37, 41)).astype(np.float32),
        "turned": rng.normal(size=(64, 33)).astype(np.float32).T,
        "halves": rng.normal(size=(999,)).astype(np.float16),
        "bytes": rng.integers(0, 256, 4097, np.uint8),
        "ints": rng.integers(0, 9, (300,), np.int64),
    }
    graph = Graph(tmp_path / "g.onnx", OPSETS)
    for name, value in weights.items():
        graph.weight(name, value)
    graph.output(graph.input("x", np.float32, [1]), np.float32, [1])
    graph.save()
    model = onnx.load(tmp_path / "g.onnx")
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(
            onnx.numpy_helper.to_array(tensor), weights[tensor.name], strict=True
        )
