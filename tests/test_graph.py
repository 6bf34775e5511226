"""The exported graphs as graphs: names, external data, what comes in and out, and both targets' numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from pulse_edge.backends import EngineOptions, open_engine
from pulse_edge.bundle import DECODER_GRAPH, VISION_GRAPH, open_bundle
from pulse_edge.errors import ExportError
from pulse_edge.export.graph import ALIGNMENT, INLINE_BYTES, Graph
from pulse_edge.export.pipeline import export

Bundles = Callable[..., Path]
COMBINATIONS = [("fp32", "cpu"), ("int8", "cpu"), ("int4", "cpu"), ("fp16", "cuda"), ("int8", "cuda"), ("int4", "cuda")]


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS)
@pytest.mark.parametrize("file", [VISION_GRAPH, DECODER_GRAPH])
def test_nodes_are_named_and_weights_aligned(bundles: Bundles, precision: str, target: str, file: str) -> None:
    model = onnx.load(bundles(precision, None, target) / file, load_external_data=False)
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {e.key: e.value for e in tensor.external_data}
            assert entries["location"] == f"{file}.data"
            assert int(entries["offset"]) % ALIGNMENT == 0
            assert int(entries["length"]) > INLINE_BYTES
        else:
            assert len(tensor.raw_data) <= INLINE_BYTES
    initializers = {t.name for t in model.graph.initializer}
    known = initializers | {i.name for i in model.graph.input} | {o for n in model.graph.node for o in n.output}
    assert {i for n in model.graph.node for i in n.input if i} <= known
    assert initializers <= {i for n in model.graph.node for i in n.input}, "a weight nobody reads"


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS)
def test_decoder_takes_and_gives_what_the_runtime_binds(bundles: Bundles, precision: str, target: str) -> None:
    path = bundles(precision, None, target)
    graph = onnx.load(path / DECODER_GRAPH, load_external_data=False).graph
    layers = open_bundle(path).manifest.model.text.layers
    cache = [f"{i}.{part}" for i in range(layers) for part in ("key", "value")]
    scalars = ["inputs_embeds", "logit_rows", "seqlens_k", "total_length"]
    assert {i.name for i in graph.input} == {*scalars, *(f"past.{c}" for c in cache)}
    assert {o.name for o in graph.output} == {"logits", *(f"present.{c}" for c in cache)}
    logits = next(o for o in graph.output if o.name == "logits")
    assert logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert logits.type.tensor_type.shape.dim[0].dim_param == "logit_rows"


def test_the_standard_operators_pass_the_checker(bundles: Bundles) -> None:
    """The fp32 vision graph has one contrib operator family; everything else must be plain ONNX."""
    model = onnx.load(bundles() / VISION_GRAPH)
    contrib = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    assert contrib == {"MultiHeadAttention", "QuickGelu", "Gelu"}
    onnx.checker.check_model(model)


@pytest.mark.parametrize(("precision", "target"), COMBINATIONS[1:])
def test_precisions_and_targets_agree_with_fp32(bundles: Bundles, precision: str, target: str) -> None:
    """Logits' cosine over 40 random positions, random weights. The CUDA graphs run here on the CPU provider, which
    inserts casts around what it has no fp16 kernel for: it checks the graph, not the GPU."""
    embeds = np.random.default_rng(0).normal(0, 1, (40, 64)).astype(np.float32)
    pixels = np.random.default_rng(1).normal(0, 1, (2, 3, 56, 56)).astype(np.float32)
    expected, engine = (
        open_engine(open_bundle(path), EngineOptions(device="cpu", threads=1))
        for path in (bundles(), bundles(precision, None, target))
    )
    for got, want in ((engine.step(embeds), expected.step(embeds)), (engine.encode(pixels), expected.encode(pixels))):
        assert got.shape == want.shape
        assert got.dtype == np.float32
        cosine = float((got * want).sum() / np.linalg.norm(got) / np.linalg.norm(want))
        assert cosine > {"fp16": 0.99999, "int8": 0.995, "int4": 0.95}[precision]


@pytest.mark.parametrize(("precision", "target"), [("fp16", "cpu"), ("fp32", "cuda")])
def test_unsupported_pairs_are_refused_by_name(checkpoint: Path, tmp_path: Path, precision: str, target: str) -> None:
    with pytest.raises(ExportError, match=f"target {target} does not run {precision}"):
        export(checkpoint, tmp_path / "out", precision=precision, target=target)
    assert not list(tmp_path.iterdir())


def test_constants_are_shared_and_names_unique(tmp_path: Path) -> None:
    graph = Graph(tmp_path / "g.onnx", {"": 21})
    assert graph.constant(np.array([1, 2], np.int64)) == graph.constant(np.array([1, 2], np.int64))
    assert graph.constant(np.array([1, 2], np.int64)) != graph.constant(np.array([1, 2], np.int32))
    graph.node("Identity", [graph.input("x", np.float32, [1])], name="y")
    with pytest.raises(ValueError, match="two nodes named 'y'"):
        graph.node("Identity", ["x"], name="y")
