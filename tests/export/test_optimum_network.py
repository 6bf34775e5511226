"""`--network optimum` without torch: its options, what is refused, and the copying of a graph."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("onnx", reason="exporting needs pulse-edge[export]")
pytest.importorskip("onnxruntime", reason="graphs run with pulse-edge[cpu]")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pulse_edge.bundle.external_data import graph_tensors
from pulse_edge.cli import cli
from pulse_edge.errors import CheckpointError, ExportError
from pulse_export.checkpoint import Checkpoint
from pulse_export.graph import Graph
from pulse_export.network.optimum.config import NETWORKS
from pulse_export.network.optimum.graph import write_traced
from pulse_export.network.writer import NetworkWriter
from pulse_export.options import ExportOptions, calibrated_parts
from pulse_export.pipeline import export
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.targets.registry import get_target

from support.damage import edit
from support.fixture_types import Checkpoints
from support.numbers import relative

LAYOUTS = ("hf_next", "hf_llava", "llava")


def with_tower(checkpoints: Checkpoints, tmp_path: Path, layout: str, **vision: Any) -> Path:
    """A checkpoint whose config names another tower; its tensors stay CLIP's."""
    path = Path(shutil.copytree(checkpoints(layout=layout), tmp_path / "source"))
    if layout == "llava":
        edit(path, "vision_config.json", **vision)
        return path
    config = json.loads((path / "config.json").read_text())
    edit(path, "config.json", vision_config=config["vision_config"] | vision)
    return path


# ---- options -------------------------------------------------------------------------------------


def test_the_default_is_our_own() -> None:
    assert ExportOptions().network == "own"
    assert ExportOptions.choices("network") == NETWORKS == ("own", "optimum")


@pytest.mark.parametrize("network", ["Optimum", "", "onnx", "OWN", "optimum "])
def test_other_networks_are_refused_by_name(network: str) -> None:
    with pytest.raises(ExportError, match=r"network '.*' is not one of own, optimum"):
        ExportOptions(network=network)


def test_the_command_has_the_option(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["export", "--help"]).output
    assert "--network [own|optimum]" in shown
    done = CliRunner().invoke(
        cli, ["export", str(tmp_path), str(tmp_path / "out"), "--network", "x"]
    )
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("precision", "target", "tower", "legal"),
    [
        ("w8a8", "standard", None, False),
        ("w8a8", "standard", "int8", True),
        ("w8a8", "standard", "fp16", True),
        ("w8a8", "cpu", None, True),
        ("int8", "standard", None, True),
        ("int4", "standard", None, True),
        ("fp16", "standard", None, True),
        ("int8", "cpu", None, True),
        ("fp16", "cuda", None, True),
        ("int4", "cuda", "int8", True),
    ],
)
def test_only_a_tower_that_needs_scales_is_refused(
    precision: str, target: str, tower: str | None, legal: bool
) -> None:
    def options() -> ExportOptions:
        return ExportOptions(precision=precision, target=target, tower=tower, network="optimum")

    if legal:
        assert options().resolve().network == "optimum"
    else:
        with pytest.raises(ExportError, match=r"takes no w8a8 tower .* add --tower int8 or fp16"):
            options()


def test_a_tower_of_optimums_is_not_calibrated() -> None:
    row = PRECISIONS["w8a8"]
    assert calibrated_parts(row, "own") == ("vision", "decoder")
    assert calibrated_parts(row, "optimum") == ("decoder",)


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["hf_next", "hf_llava"])
@pytest.mark.parametrize(
    "vision",
    [
        {"model_type": "siglip_vision_model", "hidden_act": "gelu_pytorch_tanh"},
        {"model_type": "dinov2"},
        {"model_type": "vit", "hidden_act": "gelu"},
        {"model_type": "siglip2_vision_model"},
        {"model_type": "pixtral"},
    ],
    ids=lambda v: v["model_type"],
)
def test_another_tower_is_refused_with_the_option(
    checkpoints: Checkpoints, tmp_path: Path, layout: str, vision: dict[str, Any]
) -> None:
    path = with_tower(checkpoints, tmp_path, layout, **vision)
    edit(path, "config.json", vision_feature_select_strategy="full")
    message = rf"model_type is '{vision['model_type']}'.*; export other towers with --network opt"
    with pytest.raises(CheckpointError, match=message):
        export(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_published_layout_has_clips_tower_only(
    checkpoints: Checkpoints, tmp_path: Path, network: str
) -> None:
    path = with_tower(checkpoints, tmp_path, "llava", model_type="siglip_vision_model")
    with pytest.raises(
        CheckpointError, match=r"siglip_vision_model.*convert the checkpoint to Llava"
    ):
        Checkpoint(path, network=network)


@pytest.mark.parametrize("strategy", ["full", "cls", None, 3])
def test_our_own_tower_drops_its_class_token(
    checkpoints: Checkpoints, tmp_path: Path, strategy: Any
) -> None:
    path = Path(shutil.copytree(checkpoints(layout="hf_next"), tmp_path / "source"))
    edit(path, "config.json", vision_feature_select_strategy=strategy)
    with pytest.raises(CheckpointError, match=r"vision_feature_select_strategy is .*'default'"):
        Checkpoint(path)


@pytest.mark.parametrize("missing", ["transformers", "optimum.exporters.tasks"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_optimum_the_error_says_how_to_install_it(
    checkpoints: Checkpoints,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    missing: str,
) -> None:
    """Also for CLIP's tower, which we could write ourselves: what was asked for is not there."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExportError, match=r"pip install 'pulse-edge\[export,optimum\]'") as refused:
        export(checkpoints(layout=layout), tmp_path / "out", network="optimum")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


# ---- the graph -----------------------------------------------------------------------------------

WEIGHT = np.random.default_rng(0).normal(0, 1, (6, 64)).astype(np.float32)  # [outputs, inputs]
BIAS = np.arange(6, dtype=np.float32)
PIXELS = np.random.default_rng(1).normal(0, 1, (2, 3, 64)).astype(np.float32)
Nodes = Sequence[Any]


def model_of(nodes: Nodes, weights: dict[str, np.ndarray], opset: int = 18) -> Any:
    """A traced model: `x` [n, 3, 64] -> `y`."""
    graph = helper.make_graph(
        nodes,
        "traced",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def copied(path: Path, model: Any, precision: str = "fp32", target: str = "cpu") -> Any:
    """The bundle's graph of a traced model, saved."""
    row = PRECISIONS[precision]
    kind = get_target(target, row)
    adapted = kind.adapted(row)

    def no_tensor(name: str) -> Any:
        raise AssertionError(name)

    with closing(Graph(path, kind.opsets)) as graph:
        net = NetworkWriter(graph, kind, adapted, adapted.block_size, no_tensor)
        x = graph.input("pixels", kind.io, ["views", 3, 64])
        y = write_traced(net, model, {"x": x}, "y")
        graph.node("Identity", [y], name="features")
        graph.output("features", kind.io, ["a", "b", "c"])
        graph.save()
    graph_tensors(path.read_bytes(), path.name)  # as a load reads them
    return onnx.load(path, load_external_data=False)


def run(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kind = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[
        session.get_inputs()[0].type
    ]
    (got,) = session.run(None, {"pixels": PIXELS.astype(kind)})
    return np.asarray(got, np.float32)


LINEAR: dict[str, tuple[Nodes, dict[str, np.ndarray]]] = {
    "MatMul and Add": (
        [
            helper.make_node("MatMul", ["x", "w"], ["/layer/MatMul_output_0"]),
            helper.make_node("Add", ["b", "/layer/MatMul_output_0"], ["y"]),
        ],
        {"w": np.ascontiguousarray(WEIGHT.T), "b": BIAS},
    ),
    "a weight by another name": (
        [
            helper.make_node("Identity", ["w"], ["w2"]),
            helper.make_node("MatMul", ["x", "w2"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["y"]),
        ],
        {"w": np.ascontiguousarray(WEIGHT.T), "b": BIAS},
    ),
    "a constant": (
        [
            helper.make_node(
                "Constant", [], ["w"], value=numpy_helper.from_array(np.ascontiguousarray(WEIGHT.T))
            ),
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["y"]),
        ],
        {"b": BIAS},
    ),
    "Gemm": (
        [
            helper.make_node("Constant", [], ["flat"], value_ints=[-1, 64]),
            helper.make_node("Reshape", ["x", "flat"], ["rows"]),
            helper.make_node("Gemm", ["rows", "w", "b"], ["g"], transB=1),
            helper.make_node("Constant", [], ["whole"], value_ints=[-1, 3, 6]),
            helper.make_node("Reshape", ["g", "whole"], ["y"]),
        ],
        {"w": WEIGHT, "b": BIAS},
    ),
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize(
    ("precision", "target", "operator", "bound"),
    [
        ("fp32", "cpu", "MatMul", 1e-6),
        ("int8", "cpu", "MatMulIntegerToFloat", 0.03),
        ("fp16", "cuda", "MatMul", 2e-3),
        ("fp16", "standard", "MatMul", 2e-3),
        ("int8", "standard", "DequantizeLinear", 0.03),
    ],
)
def test_a_product_with_a_weight_is_the_targets(
    tmp_path: Path, name: str, precision: str, target: str, operator: str, bound: float
) -> None:
    nodes, weights = LINEAR[name]
    graph = copied(tmp_path / "v.onnx", model_of(nodes, weights), precision, target)
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count(operator) == 1
    assert not {"Gemm", "Constant"} & set(kinds)
    assert relative(run(tmp_path / "v.onnx"), PIXELS @ WEIGHT.T + BIAS) < bound


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Gemm", ["r", "w", "b"], ["g"], transB=1, alpha=0.5)],
        [helper.make_node("Gemm", ["r", "w", "b"], ["g"], transB=1, beta=2.0)],
    ],
    ids=["alpha", "beta"],
)
def test_a_scaled_product_is_copied(tmp_path: Path, nodes: list[Any]) -> None:
    around = [
        helper.make_node("Constant", [], ["flat"], value_ints=[-1, 64]),
        helper.make_node("Reshape", ["x", "flat"], ["r"]),
        *nodes,
        helper.make_node("Constant", [], ["whole"], value_ints=[-1, 3, 6]),
        helper.make_node("Reshape", ["g", "whole"], ["y"]),
    ]
    graph = copied(tmp_path / "v.onnx", model_of(around, {"w": WEIGHT, "b": BIAS}), "int8")
    assert [node.op_type for node in graph.graph.node].count("Gemm") == 1
    factors = {a.name: a.f for a in nodes[0].attribute}
    expected = factors.get("alpha", 1) * PIXELS @ WEIGHT.T + factors.get("beta", 1) * BIAS
    assert relative(run(tmp_path / "v.onnx"), expected) < 1e-5


def test_only_what_the_output_needs_is_copied(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("LayerNormalization", ["y", "s", "b"], ["later"]),
    ]
    weights = {"w": np.ascontiguousarray(WEIGHT.T), "s": BIAS, "b": BIAS}
    graph = copied(tmp_path / "v.onnx", model_of(nodes, weights))
    assert [node.op_type for node in graph.graph.node] == ["MatMul", "Identity"]
    assert len(graph.graph.initializer) == 1


def test_floats_take_the_targets_type(tmp_path: Path) -> None:
    """Casts, masks of the largest float32, and fills; whole numbers stay."""
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["ones"],
            value=numpy_helper.from_array(np.array([1.0], np.float32)),
        ),
        helper.make_node("Add", ["c", "ones"], ["sum"]),
        helper.make_node("Max", ["sum", "lowest"], ["y"]),
    ]  # fmt: skip
    weights = {"lowest": np.array(np.finfo(np.float32).min)}
    graph = copied(tmp_path / "v.onnx", model_of(nodes, weights), "fp16", "cuda")
    (stored,) = (numpy_helper.to_array(t) for t in graph.graph.initializer)
    assert stored.dtype == np.float16
    assert np.isfinite(stored)
    assert relative(run(tmp_path / "v.onnx"), PIXELS + 1) < 2e-3


@pytest.mark.parametrize(("target", "opset"), [("cpu", 21), ("cuda", 21), ("standard", 24)])
@pytest.mark.parametrize("traced", [14, 17, 18, 20])
def test_the_graph_has_the_targets_opset(
    tmp_path: Path, target: str, opset: int, traced: int
) -> None:
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[2]),
        helper.make_node("Unsqueeze", ["x", "axes"], ["u"]),
        helper.make_node("Squeeze", ["u", "axes"], ["s"]),
        helper.make_node("Softmax", ["s"], ["y"], axis=-1),
    ]
    precision = "fp16" if target == "cuda" else "fp32"
    graph = copied(tmp_path / "v.onnx", model_of(nodes, {}, traced), precision, target)
    assert {o.domain: o.version for o in graph.opset_import}[""] == opset
    onnx.checker.check_model(graph)
    expected = np.exp(PIXELS) / np.exp(PIXELS).sum(-1, keepdims=True)
    assert relative(run(tmp_path / "v.onnx"), expected) < 5e-3


def _branch() -> Any:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "inner", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )  # fmt: skip
    return helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a branch": (lambda: model_of([_branch()], {"c": np.array(True)}), "operator ONNX.If"),
    "another domain": (
        lambda: model_of([helper.make_node("Own", ["x"], ["y"], domain="com.own")], {}),
        "operator com.own.Own",
    ),
    "a type": (
        lambda: model_of(
            [
                helper.make_node("Equal", ["i", "i"], ["e"]),
                helper.make_node("Where", ["e", "x", "x"], ["y"]),
            ],
            {"i": np.zeros((1, 1, 1), np.uint32)},
        ),
        "constant of uint32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_graphs_that_no_bundle_may_have(tmp_path: Path, name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ExportError, match=f"{message}.*; export with --network own"):
        copied(tmp_path / "v.onnx", make())


def test_names_cannot_meet_the_projectors(tmp_path: Path) -> None:
    """A traced tensor may be called as one of ours."""
    nodes = [
        helper.make_node("MatMul", ["x", "projector.0.weight"], ["features"]),
        helper.make_node("Relu", ["features"], ["y"]),
    ]
    weights = {"projector.0.weight": np.ascontiguousarray(WEIGHT.T)}
    graph = copied(tmp_path / "v.onnx", model_of(nodes, weights))
    assert {t.name for t in graph.graph.initializer} == {"tower.features.weight"}
    assert relative(run(tmp_path / "v.onnx"), np.maximum(PIXELS @ WEIGHT.T, 0)) < 1e-6
