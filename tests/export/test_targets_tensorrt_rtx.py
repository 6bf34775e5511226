"""The standard target's graphs, parsed and built by TensorRT-RTX, which needs no GPU for that.

Without a GPU no plan can be opened, so no engine inspector: what the kernels are is read from the
listing of its compiled graph that TensorRT-RTX leaves in the plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from support.fixture_types import Bundles, Checkpoints
from support.rtx import GEOMETRY, KERNELS, complaints

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
pytest.importorskip(
    "tensorrt_rtx", reason="building engines needs TensorRT-RTX: pip install tensorrt-rtx"
)

import tensorrt_rtx as trt

from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.plans import error_log
from pulse_export.checkpoint import Checkpoint
from pulse_export.graph import Graph
from pulse_export.network.decoder import write_decoder
from pulse_export.network.writer import NetworkWriter
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.targets import tensorrt

pytestmark = pytest.mark.tensorrt

LAYERS = 2
DEVICES = ["SM86", "SM89"]


@dataclass(frozen=True)
class Built:
    """A plan: its size, the types of the parsed network's layers, and its listing's lines."""

    size: int
    layers: list[Any]
    lines: list[str]

    def calls(self, kind: str) -> list[str]:
        """Names of a kind of call: `function`, a kernel; `runtime_fusion`, a matrix product with
        what is around it.
        """
        return [
            m[1] for m in (re.match(rf"  {kind}=\{{ name=(\w+)", line) for line in self.lines) if m
        ]

    @property
    def weights_written_out(self) -> list[str]:
        """Kernels that do nothing but turn a whole weight into floats, which every run would
        repeat.
        """
        return [
            name
            for name in self.calls("function")
            if re.fullmatch(r"__myl_(Repl)?(Cast)?MulCast", name)
        ]

    @property
    def quantized_products(self) -> list[str]:
        """Matrix products that read quantized weights."""
        return [
            name
            for name in self.calls("runtime_fusion")
            if re.match(r"__myl_(Repl)?CastMulCastFc", name)
        ]

    @property
    def int8_products(self) -> list[str]:
        """Matrix products whose two factors are int8 and whose result is float32."""
        types = {
            m[1]: m[2]
            for m in (
                re.match(r'  (?:sub_)?tensor={.* name="([^"]+)" .* type=(\w+) }', line)
                for line in self.lines
            )
            if m
        }
        call = re.compile(
            r'  fully_connected={ name="([^"]+)" output={"([^"]+)" } input={"([^"]+)" "([^"]+)"'
        )
        found = [m.groups() for m in map(call.match, self.lines) if m]
        return [
            name
            for name, *operands in found
            if [types[o] for o in operands] == ["float", "int8", "int8"]
        ]

    def cache(self, place: str) -> set[str]:
        """Cache tensors among the engine's `inputs` or `outputs`; those of fusions come
        after them.
        """
        line = next(line for line in self.lines if line.startswith(f"  {place}={{"))
        return set(re.findall(r'"((?:past|present)\.\d+\.\w+)', line))


def build(graph: Path, device: str, rows: int = 64) -> Built:
    """An engine for up to `rows` rows of the decoder, and 8 rows' logits, or up to 5 views of the
    tower.
    """
    log = error_log(trt)  # the one that TensorRT knows, whatever has built before
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse_from_file(str(graph)), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, device), 0)
    profile = builder.create_optimization_profile()
    most = {"inputs_embeds": rows, "logit_rows": 8, "pixels": 5}
    for value in map(network.get_input, range(network.num_inputs)):
        if -1 in value.shape:
            least, largest = (
                tuple(n if d == -1 else d for d in value.shape) for n in (1, most[value.name])
            )
            profile.set_shape(value.name, least, largest, largest)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.complaints
    assert any("Make sure input" in w for w in log.warnings) == (
        graph.name == DECODER_GRAPH
    )  # it does hear them
    assert complaints(log) == []
    layers = [network.get_layer(i).type for i in range(network.num_layers)]
    return Built(plan.nbytes, layers, bytes(plan).decode("latin-1").split("\n"))


Graphs = Callable[..., Path]


@pytest.fixture(scope="module")
def graphs(bundles: Bundles) -> Graphs:
    def graph(precision: str, file: str, **options: Any) -> Path:
        return (
            bundles(
                precision, 128 if precision == "int4" else None, "standard", **GEOMETRY, **options
            )
            / file
        )

    return graph


def weights(graph: Path) -> int:
    """Bytes of the graph's weights."""
    return graph.with_name(f"{graph.name}.data").stat().st_size


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_heads", [None, 2])
@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_decoder(graphs: Graphs, precision: str, kv_heads: int | None, device: str) -> None:
    graph = graphs(precision, DECODER_GRAPH, kv_heads=kv_heads)
    built = build(graph, device)
    assert built.layers.count(trt.LayerType.KV_CACHE_UPDATE) == 2 * LAYERS
    cache = {f"present.{i}.{part}" for i in range(LAYERS) for part in ("key", "value")}
    assert built.cache("inputs") == built.cache("outputs") == cache  # one tensor, in and out
    assert built.calls("function").count("_gemm_mha_v2") == LAYERS  # fused attention
    assert built.size < weights(graph) + KERNELS
    assert built.weights_written_out == []
    products = 0 if precision == "fp16" else 4 * LAYERS + 1  # gate and up are one
    assert len(built.quantized_products) == products
    norms = [name for name in built.calls("function") if "Mean" in name]
    assert len(norms) == 2 * LAYERS + 1
    assert all(
        "CastMulMeanAddSqrtDiv" in name for name in norms
    )  # squares of more than 256 do not fit float16


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_reads_the_cache_where_it_is(graphs: Graphs, device: str) -> None:
    """An engine for single rows has a kernel for that; those for more rows copy keys and values
    first.
    """
    built = build(graphs("int4", DECODER_GRAPH), device, rows=1)
    steps = [line for line in built.lines if line.startswith("  function={ name=_gemv_mha_v1 ")]
    assert len(steps) == LAYERS
    for i, line in enumerate(steps):
        assert f'"present.{i}.key.1" "present.{i}.value.1"' in line
    assert built.weights_written_out == []
    assert len(built.quantized_products) == 4 * LAYERS + 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_vision(graphs: Graphs, precision: str, device: str) -> None:
    graph = graphs(precision, VISION_GRAPH)
    built = build(graph, device)
    assert built.calls("function").count("_gemm_mha_v2") == LAYERS
    assert built.size < weights(graph) + KERNELS
    assert built.weights_written_out == []
    assert len(built.quantized_products) == (0 if precision == "fp16" else 6 * LAYERS + 2)
    norms = [name for name in built.calls("function") if "Mean" in name]
    assert len(norms) == 2 * LAYERS + 1
    assert all("CastMeanSubMulMean" in name for name in norms)  # in float32


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("file", "products"), [(DECODER_GRAPH, 4 * LAYERS), (VISION_GRAPH, 4 * LAYERS + 2)]
)
def test_w8a8_multiplies_int8_with_int8(
    graphs: Graphs, file: str, products: int, device: str
) -> None:
    """q, k and v are one product, and so are gate and up.

    What rounds activations is part of the kernel before.
    """
    graph = graphs("w8a8", file)
    built = build(graph, device)
    assert len(built.int8_products) == products
    assert len(built.quantized_products) == (file == DECODER_GRAPH)  # the head: weights only
    assert built.weights_written_out == []
    assert built.size < weights(graph) + KERNELS < weights(graphs("fp16", file))
    assert weights(graph) < 1.02 * weights(graphs("int8", file))
    rounding = [name for name in built.calls("function") if "MinMaxRounCast" in name]
    assert len(rounding) == products
    assert not [
        name for name in rounding if re.fullmatch(r"__myl_(Repl)?(Cast)?(Mul)?MinMaxRounCast", name)
    ]


@pytest.mark.parametrize("file", [DECODER_GRAPH, VISION_GRAPH])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_plan_of_folded_weights_would_be_seen(graphs: Graphs, precision: str, file: str) -> None:
    """The bound on a plan's size is under what its weights take in fp16."""
    assert weights(graphs("fp16", file)) > weights(graphs(precision, file)) + KERNELS


def test_int8_in_blocks_is_written_out(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Why int8 has a scale for each output: the day this fails it may have blocks, as in the other
    targets.
    """
    source = Checkpoint(checkpoints(**GEOMETRY))
    target = replace(tensorrt.HALF, blocked=frozenset({"int8"}))
    graph = Graph(tmp_path / DECODER_GRAPH, target.opsets)
    write_decoder(NetworkWriter(graph, target, PRECISIONS["int8"], 128, source.tensor), source.spec)
    graph.save()
    built = build(tmp_path / DECODER_GRAPH, "SM86")
    assert built.quantized_products == []
    assert len(built.weights_written_out) == 4 * LAYERS + 1
