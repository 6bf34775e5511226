"""The target `standard`: plain ONNX that computes what `cpu`'s graphs do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from support.fixture_types import Bundles, Checkpoints
from support.numbers import relative
from support.standard_graphs import Decoder, features, session

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")
pytest.importorskip("onnxruntime", "1.25", reason="ONNX Runtime 1.24 has no TensorScatter")

import onnx

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.cli import cli
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError
from pulse_export.checkpoint import Checkpoint, Tensors
from pulse_export.graph import Graph
from pulse_export.network.decoder import write_decoder
from pulse_export.network.vision import write_vision
from pulse_export.network.writer import NetworkWriter
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.quantize.weights import QuantWeight, quantize
from pulse_export.targets import onnxruntime, tensorrt

Floats = NDArray[np.float32]
GRAPHS = (VISION_GRAPH, DECODER_GRAPH)
HEADS = [None, 2]  # as many key/value heads as heads, and grouped


def embeds(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, 64)).astype(np.float32)


def pages(views: int = 2) -> Floats:
    return np.random.default_rng(7).normal(size=(views, 3, 56, 56)).astype(np.float32)


def read(path: Path) -> Any:
    return onnx.load(path, load_external_data=False)


# -- the graphs


@pytest.mark.parametrize("file", GRAPHS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_graphs_are_plain_onnx(bundles: Bundles, precision: str, file: str) -> None:
    path = bundles(precision, None, "standard") / file
    onnx.checker.check_model(str(path), full_check=True)
    model = read(path)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 24)]
    assert {node.domain for node in model.graph.node} == {""}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    used = {name for node in model.graph.node for name in node.input}
    assert {t.name for t in model.graph.initializer} <= used
    assert {i.name for i in model.graph.input} <= used


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("kv_heads", HEADS)
def test_the_decoders_inputs_and_outputs(
    bundles: Bundles, precision: str, kv_heads: int | None
) -> None:
    path = bundles(precision, None, "standard", kv_heads=kv_heads)
    spec = open_bundle(path).manifest.model.text
    graph = read(path / DECODER_GRAPH).graph
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    cache = [f"{layer}.{part}" for layer in range(spec.layers) for part in ("key", "value")]
    inputs = ["inputs_embeds", "logit_rows", "position", *(f"past.{c}" for c in cache)]
    assert [i.name for i in graph.input] == inputs
    assert [o.name for o in graph.output] == [*(f"present.{c}" for c in cache), "logits"]
    assert (shapes["position"], shapes["logits"]) == ([1], ["logit_rows", spec.vocab])
    for c in cache:  # nothing dynamic: TensorRT wants the length of a cache when it builds
        expected = [1, kv_heads or spec.heads, spec.context, spec.head_size]
        assert shapes[f"past.{c}"] == shapes[f"present.{c}"] == expected


# -- the numbers of cpu's graphs


@pytest.mark.parametrize("kv_heads", HEADS)
def test_logits_are_those_of_cpu(bundles: Bundles, kv_heads: int | None) -> None:
    """Prefill, single steps, several rows at once, then back to a lower position and on with
    something else.
    """
    engine = open_engine(open_bundle(bundles(kv_heads=kv_heads)), EngineOptions("cpu", threads=1))
    decoder = Decoder(bundles("fp32", None, "standard", kv_heads=kv_heads) / DECODER_GRAPH)
    first, other = embeds(60), embeds(30, seed=1)
    script = [(0, first[:40]), *((i, first[i : i + 1]) for i in range(40, 45)), (45, first[45:])]
    script += [(25, other[:1]), (26, other[1:8]), (33, other[8:]), (0, other)]
    for position, rows in script:
        engine.rewind(position)
        decoder.length = position
        assert relative(decoder(rows), engine.step(rows)) < 1e-4


def test_a_cache_is_updated_in_place(bundles: Bundles) -> None:
    """Only the rows at the position change: what was there before is neither moved nor cleared."""
    decoder = Decoder(bundles("fp32", None, "standard") / DECODER_GRAPH)
    decoder(embeds(10))
    before = decoder.cache["1.key"].numpy().copy()
    decoder.length = 4
    decoder(embeds(3, seed=1))
    after = decoder.cache["1.key"].numpy()
    changed = (before != after).any(axis=(0, 1, 3))
    assert changed.nonzero()[0].tolist() == [4, 5, 6]


def test_the_last_position_of_a_cache(bundles: Bundles) -> None:
    path = bundles("fp32", None, "standard")
    context = open_bundle(path).manifest.model.text.context
    x = embeds(context)
    whole, decoder = Decoder(path / DECODER_GRAPH), Decoder(path / DECODER_GRAPH)
    expected = whole(x, [context - 1])
    decoder(x[:-1], [0])
    assert relative(decoder(x[-1:]), expected) < 1e-4


def test_only_the_rows_that_are_asked_for_are_computed(bundles: Bundles) -> None:
    path = bundles("fp32", None, "standard") / DECODER_GRAPH
    x = embeds(20)
    every = Decoder(path)(x)
    for rows in ([19], [0], [3, 17, 5]):
        assert relative(Decoder(path)(x, rows), every[rows]) < 1e-5


def test_features_are_those_of_cpu(bundles: Bundles) -> None:
    engine = open_engine(open_bundle(bundles()), EngineOptions("cpu", threads=1))
    got = features(bundles("fp32", None, "standard") / VISION_GRAPH, pages())
    assert relative(got, engine.encode(pages())) < 1e-4


def test_gelu_instead_of_quick_gelu(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The tower's activation is a field of the specification; the tiny checkpoints have one of the
    two.
    """
    source = Checkpoint(checkpoints())
    spec = replace(source.spec, vision=replace(source.spec.vision, activation="gelu"))
    got = [
        features(write(tmp_path / f"{i}.onnx", spec, target, "fp32", source.tensor), pages())
        for i, target in enumerate((tensorrt.FULL, onnxruntime.CPU))
    ]
    assert relative(*got) < 1e-4


@pytest.mark.parametrize(
    ("precision", "features_bar", "logits_bar"),
    [
        ("fp16", 0.005, 0.01),
        ("int8", 0.1, 0.1),
        ("int4", 0.1, 0.5),
    ],  # about a third of each is measured
)
def test_every_precision_is_the_same_model(
    bundles: Bundles, precision: str, features_bar: float, logits_bar: float
) -> None:
    path, full = bundles(precision, None, "standard"), bundles("fp32", None, "standard")
    x = embeds(40)
    assert (
        0
        < relative(features(path / VISION_GRAPH, pages()), features(full / VISION_GRAPH, pages()))
        < features_bar
    )
    decoder = Decoder(path / DECODER_GRAPH, np.float16)
    got = np.concatenate([decoder(x[:30]), decoder(x[30:])])
    assert 0 < relative(got, Decoder(full / DECODER_GRAPH)(x)) < logits_bar


# -- quantized weights


def codes_and_scales(path: Path) -> dict[str, Any]:
    """Every quantized weight's stored tensors, under the node's name."""
    model = onnx.load(path)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return {n.name.removesuffix(".weight"): [tensors[i] for i in n.input] for n in model.graph.node
            if n.op_type == "DequantizeLinear"}  # fmt: skip


def expected_weight(
    source: Checkpoint, name: str, bits: int, block: int, signed: bool
) -> QuantWeight:
    names = [name.replace("qkv", f"self_attn.{p}_proj") for p in "qkv"] if "qkv" in name else [name]
    weight = np.concatenate([source.tensor(f"{n}.weight") for n in names])
    return quantize(weight, bits, block or weight.shape[1], signed=signed)


@pytest.mark.parametrize("block", [32, 64])
def test_int4_codes_and_scales(bundles: Bundles, checkpoint: Path, block: int) -> None:
    """Signed and turned, but cpu's, save in blocks whose largest weight is positive: there its
    scale is negative, which TensorRT refuses.
    """
    source = Checkpoint(checkpoint)
    stored = codes_and_scales(bundles("int4", block, "standard") / DECODER_GRAPH)
    assert len(stored) == 2 * 5 + 1
    del stored["lm_head"]
    for name, (codes, scales) in stored.items():
        assert (codes.dtype, scales.dtype) == ("int4", np.float16)
        assert (scales > 0).all()
        codes, scales = codes.astype(np.int8).T, scales.reshape(-1, codes.shape[1]).T
        expected = expected_weight(source, name, 4, block, signed=False)
        np.testing.assert_array_equal(
            codes, expected.codes[:, : expected.columns].astype(np.int8) - 8
        )
        np.testing.assert_array_equal(scales, expected.scales.astype(np.float16))
        other = expected_weight(source, name, 4, block, signed=True)  # cpu's
        same = other.scales > 0
        assert 0.2 < same.mean() < 0.8
        np.testing.assert_array_equal(scales[same], other.scales.astype(np.float16)[same])
        each = np.repeat(same, block, axis=1)[:, : other.columns]
        np.testing.assert_array_equal(
            codes[each], (other.codes[:, : other.columns].astype(np.int8) - 8)[each]
        )


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_int8_has_one_scale_for_each_output(
    bundles: Bundles, checkpoint: Path, precision: str
) -> None:
    source = Checkpoint(checkpoint)
    path = bundles(precision, None, "standard")
    stored = codes_and_scales(path / VISION_GRAPH)
    assert len(stored) == 14  # the patch embedding is not quantized
    decoder = codes_and_scales(path / DECODER_GRAPH)
    stored |= decoder if precision == "int8" else {"lm_head": decoder["lm_head"]}
    for name, (codes, scales) in stored.items():
        expected = expected_weight(source, name, 8, 0, signed=False)
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(codes.T, expected.codes.astype(np.int16) - 128)
        np.testing.assert_array_equal(scales, expected.scales[:, 0].astype(np.float16))


def write(
    path: Path,
    spec: ModelSpec,
    target: Any,
    precision: str,
    tensors: Tensors,
    name: str = VISION_GRAPH,
) -> Path:
    """One graph of a checkpoint's tensors for a target that the export would not choose."""
    graph = Graph(path, target.opsets)
    row = PRECISIONS[precision]
    write_network = {VISION_GRAPH: write_vision, DECODER_GRAPH: write_decoder}[name]
    write_network(NetworkWriter(graph, target, row, 32, tensors), spec)
    graph.save()
    return path


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_numbers_are_those_of_the_dequantized_weights(
    checkpoint: Path, tmp_path: Path, precision: str
) -> None:
    """In fp32, where nothing but the weights differs from the unquantized graph."""
    source = Checkpoint(checkpoint)
    row = PRECISIONS[precision]

    def dequantized(name: str) -> Floats:
        tensor = source.tensor(name)
        if tensor.ndim != 2 or "embedding" in name:
            return tensor
        part = {"lm_head": row.head, "layers": row.decoder}.get(name.split(".")[0], row.vision)
        bits, block = (4, 32) if part == "int4" else (8, tensor.shape[1])
        return quantize(tensor, bits, block, signed=False).dequantize()

    for name in GRAPHS:
        got = write(
            tmp_path / f"quantized-{name}",
            source.spec,
            tensorrt.FULL,
            precision,
            source.tensor,
            name,
        )
        expected = write(
            tmp_path / f"floats-{name}", source.spec, tensorrt.FULL, "fp32", dequantized, name
        )
        if name == VISION_GRAPH:
            assert relative(features(got, pages()), features(expected, pages())) < 1e-5
        else:
            assert relative(Decoder(got)(embeds(40)), Decoder(expected)(embeds(40))) < 1e-5


def test_a_block_of_zeros(tmp_path: Path) -> None:
    """Its scale is not zero, which TensorRT would refuse, and its weights are."""
    weight = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    weight[2, :32] = 0
    graph = Graph(tmp_path / "g.onnx", tensorrt.FULL.opsets)
    x = graph.input("x", np.float32, ["n", 64])
    tensorrt.FULL.emit_linear(graph, x, quantize(weight, 4, 32, signed=False), None, "y")
    graph.output("y", np.float32, ["n", 8])
    graph.save()
    ((_, scales),) = codes_and_scales(tmp_path / "g.onnx").values()
    assert (scales > 0).all()
    row = np.zeros((1, 64), np.float32)
    row[:, :32] = 1
    assert session(tmp_path / "g.onnx").run(None, {"x": row})[0][0, 2] == 0


# -- around it


def test_the_manifest_says_what_was_made(bundles: Bundles) -> None:
    made = {p: open_bundle(bundles(p, None, "standard")).manifest for p in PRECISIONS}
    assert {m.target for m in made.values()} == {"standard"}
    info = {
        p: (m.precision.io, m.precision.activations, m.precision.block_size)
        for p, m in made.items()
    }
    assert info == {
        "fp32": ("fp32", "fp32", 0),
        "fp16": ("fp16", "fp16", 0),
        "int8": ("fp16", "fp16", 0),
        "int4": ("fp16", "fp16", 32),
        "w8a8": ("fp16", "int8, static, per tensor", 0),
    }
    assert made["int4"].precision.recipe == "RTN symmetric, int4 per block, int8 per output"
    assert made["int8"].precision.recipe == "RTN symmetric, int8 per output"


def test_without_tensorrt_it_is_said_what_to_install(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(
        EngineError, match=r"cuda-python is not installed .*pip install cuda-bindings"
    ):
        open_engine(open_bundle(bundles("fp16", None, "standard")), EngineOptions())


def test_onnx_runtimes_cpu_provider_is_its_backend(bundles: Bundles) -> None:
    """Its numbers in fp32 are those of cpu's graphs; a context may be shorter than the graph's
    cache.
    """
    cpu_engine = open_engine(open_bundle(bundles()), EngineOptions(threads=1, context=100))
    engine = open_engine(
        open_bundle(bundles("fp32", None, "standard")), EngineOptions("cpu", threads=1, context=100)
    )
    assert (engine.capacity, engine.describe()["device"]) == (100, "cpu")
    x = embeds(60)
    for each in (cpu_engine, engine):
        each.prefill(x)
        each.rewind(20)
    for rows in (x[30:45], x[:1], x[5:6]):
        assert relative(engine.step(rows), cpu_engine.step(rows)) < 1e-4
    assert relative(engine.encode(pages()), cpu_engine.encode(pages())) < 1e-4
    with pytest.raises(EngineError, match="do not fit a cache of 100"):
        engine.step(embeds(70))
    assert engine.length == 37


def test_from_the_command_line(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        "export",
        str(checkpoint),
        str(out),
        "--target",
        "standard",
        "--precision",
        "int4",
        "--block-size",
        "64",
    ]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert open_bundle(out).manifest.precision.block_size == 64
    refused = CliRunner().invoke(
        cli, [*command[:2], str(tmp_path / "b"), *command[3:6], "int8", *command[7:]]
    )
    assert "block size 64 must be left out for int8 on standard" in str(refused.exception)
