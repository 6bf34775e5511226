"""The written graphs: well formed, named, aligned. All targets mean the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.numbers import relative_norm

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")

import onnx

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_export.graph import ALIGNMENT, INLINE_BYTES

Bundles = Callable[..., Path]
Floats = NDArray[np.float32]
Inputs = tuple[Floats, NDArray[np.int64]]
EVERY = [
    *(("fp32", "cpu"), ("int8", "cpu"), ("int4", "cpu"), ("w8a8", "cpu")),
    *(("fp16", "cuda"), ("int8", "cuda"), ("int4", "cuda")),
]
GRAPHS = (VISION_GRAPH, DECODER_GRAPH)
LINEAR = ("MatMul", "MatMulNBits", "MatMulIntegerToFloat")


def read(path: Path) -> Any:
    return onnx.load(path, load_external_data=False)


def external(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


@pytest.mark.parametrize("file", GRAPHS)
@pytest.mark.parametrize(("precision", "target"), EVERY)
def test_graphs_are_well_formed(bundles: Bundles, precision: str, target: str, file: str) -> None:
    path = bundles(precision, None, target)
    graph = read(path / file).graph
    names = [node.name for node in graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    known = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    used = {""}
    for node in graph.node:  # in order, each value made before it is used, and once
        assert set(node.input) <= known, node.name
        outputs = set(node.output) - {""}
        assert not outputs & known, node.name
        known |= outputs
        used |= set(node.input)
    assert {o.name for o in graph.output} <= known
    assert {t.name for t in graph.initializer} <= used, "a weight that nothing uses"
    assert {i.name for i in graph.input} <= used


def test_the_standard_operators_pass_the_checker(bundles: Bundles) -> None:
    """The fp32 vision graph has one contrib operator family; everything else must be plain ONNX."""
    model = onnx.load(bundles() / VISION_GRAPH)
    contrib = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    assert contrib == {"MultiHeadAttention", "QuickGelu", "Gelu"}
    onnx.checker.check_model(model)


@pytest.mark.parametrize("file", GRAPHS)
@pytest.mark.parametrize(("precision", "target"), EVERY)
def test_weights_are_aligned_and_fill_the_data_file(
    bundles: Bundles, precision: str, target: str, file: str
) -> None:
    path = bundles(precision, None, target)
    end, size = 0, (path / f"{file}.data").stat().st_size
    for tensor in read(path / file).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            assert len(tensor.raw_data) <= INLINE_BYTES
            continue
        place = external(tensor)
        offset, length = int(place["offset"]), int(place["length"])
        assert place["location"] == f"{file}.data"
        assert offset % ALIGNMENT == 0
        assert end <= offset < end + ALIGNMENT, "a gap or an overlap"
        end = offset + length
    assert end == size


@pytest.mark.parametrize(("precision", "target"), EVERY)
def test_the_decoders_inputs_and_outputs(bundles: Bundles, precision: str, target: str) -> None:
    spec = open_bundle(bundles(precision, None, target)).manifest.model.text
    graph = read(bundles(precision, None, target) / DECODER_GRAPH).graph
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    cache = [f"{layer}.{part}" for layer in range(spec.layers) for part in ("key", "value")]
    gathers = target == "cuda"
    rows = ["table", "rows"] if gathers else ["inputs_embeds"]
    assert [i.name for i in graph.input] == [
        *rows, "logit_rows", "seqlens_k", "total_length", *(f"past.{c}" for c in cache),
    ]  # fmt: skip
    assert [o.name for o in graph.output] == [
        *(f"present.{c}" for c in cache),
        "logits",
        *["tokens"] * gathers,
    ]
    if gathers:
        assert (shapes["table"], shapes["rows"]) == (["table_rows", spec.hidden], ["rows"])
        assert shapes["tokens"] == ["logit_rows"]
    else:
        assert shapes["inputs_embeds"] == ["batch", "rows", spec.hidden]
    batch: int | str = 1 if gathers else "batch"
    assert shapes["seqlens_k"] == [batch]
    assert shapes["total_length"] == []
    count = "logit_rows" if gathers else "batch_logit_rows"
    assert shapes["logits"] == [count, spec.vocab]
    for c in cache:
        assert (
            shapes[f"past.{c}"]
            == shapes[f"present.{c}"]
            == [batch, spec.kv_heads, "capacity", spec.head_size]
        )
    floats = {
        v.type.tensor_type.elem_type
        for v in graph.input
        if v.name.startswith(("past", "inputs", "table"))
    }
    assert floats == {onnx.TensorProto.FLOAT16 if target == "cuda" else onnx.TensorProto.FLOAT}
    types = {o.name: o.type.tensor_type.elem_type for o in graph.output}
    assert types["logits"] == onnx.TensorProto.FLOAT
    assert types.get("tokens", onnx.TensorProto.INT64) == onnx.TensorProto.INT64


@pytest.mark.parametrize(("precision", "target"), EVERY)
def test_weights_have_the_precision_they_should(
    bundles: Bundles, precision: str, target: str
) -> None:
    """Every linear layer is quantized where the precision says so, in the blocks it says, and none
    where not.
    """
    manifest = open_bundle(bundles(precision, None, target)).manifest
    for file, parts in ((VISION_GRAPH, ["vision"]), (DECODER_GRAPH, ["decoder", "head"])):
        graph = read(bundles(precision, None, target) / file).graph
        linear = {n.name.removesuffix(".product"): n for n in graph.node if n.op_type in LINEAR}
        assert len(linear) == (15 if file == VISION_GRAPH else 11)
        for name, node in linear.items():
            part = "head" if name == "lm_head" else parts[0]
            storage = getattr(manifest.precision, part)
            if storage in ("fp32", "fp16") or name == "vision.patch_embedding":
                assert node.op_type == "MatMul", name
                continue
            if storage == "w8a8":
                assert node.op_type == "MatMulIntegerToFloat", name
                continue
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes["bits"] == {"int8": 8, "int4": 4}[storage], name
            assert attributes["block_size"] == manifest.precision.block_size
            assert attributes["accuracy_level"] == (4 if target == "cpu" else 0)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    """Two views of pixels, and a prompt's tokens."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (2, 3, 56, 56)).astype(np.float32), rng.integers(0, 512, 40)


def outputs(path: Path, inputs: Inputs) -> tuple[Floats, Floats]:
    """Features, and logits of every position, on the CPU."""
    engine = open_engine(open_bundle(path), EngineOptions("cpu", threads=1))
    pixels, tokens = inputs
    return np.asarray(engine.encode(pixels), np.float32), np.array(engine.step(engine.rows(tokens)))


@pytest.mark.parametrize(
    ("precision", "target", "features", "logits"),
    [  # upper bounds; about a third of each is measured
        ("int8", "cpu", 0.05, 0.05),
        ("int4", "cpu", 0.05, 0.4),
        ("w8a8", "cpu", 0.05, 0.05),
        ("fp16", "cuda", 0.005, 0.01),
        ("int8", "cuda", 0.05, 0.05),
        ("int4", "cuda", 0.05, 0.4),
    ],
)
def test_every_precision_and_target_is_the_same_model(
    bundles: Bundles, inputs: Inputs, precision: str, target: str, features: float, logits: float
) -> None:
    """CUDA's graphs run on the CPU too, if slowly."""
    expected = outputs(bundles(), inputs)
    got = outputs(bundles(precision, None, target), inputs)
    errors = relative_norm(got[0], expected[0]), relative_norm(got[1], expected[1])
    assert 0 < errors[0] < features
    assert 0 < errors[1] < logits


@pytest.mark.parametrize(("precision", "target"), [("fp32", "cpu"), ("fp16", "cuda")])
def test_only_the_rows_that_are_asked_for_are_computed(
    bundles: Bundles, inputs: Inputs, precision: str, target: str
) -> None:
    ort = pytest.importorskip("onnxruntime")
    path = bundles(precision, None, target)
    dtype = np.float32 if precision == "fp32" else np.float16
    session = ort.InferenceSession(str(path / DECODER_GRAPH), providers=["CPUExecutionProvider"])
    rows, table = len(inputs[1]), np.random.default_rng(1).normal(0, 1, (512, 64)).astype(dtype)
    feeds = {
        i.name: np.zeros((1, 4, 64, 16), dtype)
        for i in session.get_inputs()
        if i.name.startswith("past.")
    }
    feeds |= (
        {"table": table, "rows": inputs[1]}
        if target == "cuda"
        else {"inputs_embeds": table[inputs[1]][None]}
    )
    feeds |= {
        "seqlens_k": np.array([rows - 1], np.int32),
        "total_length": np.array(rows, np.int32),
    }
    every = session.run(["logits"], feeds | {"logit_rows": np.arange(rows)})[0]
    assert every.shape == (rows, 512)
    for wanted in ([rows - 1], [0], [3, 17, 5], [rows - 2, rows - 1]):
        some = session.run(["logits"], feeds | {"logit_rows": np.array(wanted)})[0]
        assert some.shape == (len(wanted), 512)
        np.testing.assert_allclose(some, every[wanted], rtol=2e-3, atol=2e-3)


def test_the_vision_graph_takes_any_number_of_views(bundles: Bundles, inputs: Inputs) -> None:
    engine = open_engine(open_bundle(bundles()), EngineOptions(threads=1))
    both = engine.encode(inputs[0])
    assert both.shape == (2, 16, 64)
    for i in range(2):
        np.testing.assert_allclose(
            engine.encode(inputs[0][i : i + 1])[0], both[i], rtol=1e-4, atol=1e-5
        )


def test_what_layers_share_is_rounded_once(bundles: Bundles) -> None:
    """The codes of an input that several layers read, such as gate and up."""
    graph = read(bundles("w8a8") / DECODER_GRAPH).graph
    codes = [n.output[0] for n in graph.node if n.op_type == "QuantizeLinear"]
    products = [n.input[0] for n in graph.node if n.op_type == "MatMulIntegerToFloat"]
    assert (len(codes), len(products)) == (2 * 4, 2 * 5)  # qkv, o, gate and up, down
    assert set(codes) == set(products)
