"""SmoothQuant: what a calibration sees, what folding changes, and the W8A8 graphs."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support import tiny
from support.fixture_types import Checkpoints
from support.numbers import relative

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")
pytest.importorskip("onnxruntime", "1.25", reason="ONNX Runtime 1.24 has no TensorScatter")

import onnx
import onnxruntime as ort

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, VISION_GRAPH
from pulse_edge.bundle.spec import ModelSpec
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page import views as images
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint, Tensors
from pulse_export.graph import Graph
from pulse_export.network.decoder import write_decoder
from pulse_export.network.vision import write_vision
from pulse_export.network.writer import NetworkWriter
from pulse_export.pipeline import export
from pulse_export.quantize.calibrate import Calibration, calibrate
from pulse_export.quantize.precision import PRECISIONS
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.samples import Sample, read_samples
from pulse_export.quantize.smooth import Smoothed, sites
from pulse_export.quantize.weights import quantize
from pulse_export.targets import onnxruntime, tensorrt

Floats = NDArray[np.float32]


def page(seed: int, size: tuple[int, int] = (130, 100)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of three small pages; simulated ones take a second each."""
    folder = tmp_path_factory.mktemp("noise")
    for i in range(3):
        page(i).save(folder / f"{i}.png")
    return folder


def record(source: Checkpoint, pages: Path, samples: int = 3, alpha: float = 0.5) -> Calibration:
    return calibrate(
        source.path, source.spec, source.tensor, Recipe(pages, samples=samples, alpha=alpha)
    )


def sample_of(source: Checkpoint, pages: Path) -> Sample:
    return next(read_samples(source.path, source.spec, 1, pages))


# -- the whole model with another `linear`


def features_by(
    pixels: reference.Array, spec: ModelSpec, tensors: Tensors, linear: reference.Linear
) -> reference.Array:
    views = []
    for view in pixels:
        x = reference.vision_embeddings(view, spec, tensors)
        for i in range(spec.vision.feature_layers):
            x = reference.vision_layer(x, i, spec, tensors, linear)
        views.append(x[1:])
    return reference.project(np.stack(views), spec, tensors, linear)


def logits_by(
    embeds: reference.Array, spec: ModelSpec, tensors: Tensors, linear: reference.Linear
) -> reference.Array:
    for i in range(spec.text.layers):
        embeds = reference.decoder_layer(embeds, i, spec, tensors, None, linear)
    normed = reference.rms_norm(embeds, tensors("norm.weight").astype(embeds.dtype), spec.text.eps)
    return reference.linear_layer(normed, tensors, "lm_head")


# -- what is measured


def seen_by_onnx_runtime(path: Path, feeds: dict[str, Any]) -> dict[str, Floats]:
    """Largest magnitude of each column of every MatMul's input in a graph."""
    model = onnx.load(path)
    reads = {n.input[0] for n in model.graph.node if n.op_type == "MatMul"}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(reads))
    onnx.save(model, path.with_name("observed.onnx"))
    session = ort.InferenceSession(
        str(path.with_name("observed.onnx")), providers=["CPUExecutionProvider"]
    )
    for value in session.get_inputs():
        if value.name.startswith("past."):
            feeds[value.name] = np.zeros(value.shape, np.float32)
    names = [o.name for o in session.get_outputs()]
    got = dict(zip(names, session.run(names, feeds), strict=True))
    return {
        n.name.replace(".qkv", ".self_attn.q_proj"): np.abs(got[n.input[0]]).max(axis=(0, 1))
        for n in model.graph.node
        if n.op_type == "MatMul"
    }


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2, "merge": "spatial_unpad"}])
def test_peaks_are_what_the_graphs_compute(
    checkpoints: Checkpoints, tmp_path: Path, noise: Path, options: dict[str, Any]
) -> None:
    """Against ONNX Runtime on the fp32 graphs: every activation that a linear layer reads."""
    source = Checkpoint(checkpoints(**options))
    spec, got = source.spec, record(source, noise, samples=1)
    sample = sample_of(source, noise)
    for file, write in ((VISION_GRAPH, write_vision), (DECODER_GRAPH, write_decoder)):
        graph = Graph(tmp_path / file, tensorrt.FULL.opsets)
        write(NetworkWriter(graph, tensorrt.FULL, PRECISIONS["fp32"], 0, source.tensor), spec)
        graph.save()
    pixels = images.preprocess(sample.page, spec)
    expected = seen_by_onnx_runtime(tmp_path / VISION_GRAPH, {"pixels": pixels})
    newline = source.tensor("image_newline") if spec.image.merge == "spatial_unpad" else None
    features = reference.vision_features(pixels, spec, source.tensor)
    embeds = reference.splice(
        sample.ids,
        reference.merge_features(features, sample.page.size, spec, newline),
        source.tensor,
    )
    feeds = {
        "inputs_embeds": embeds[None],
        "logit_rows": np.arange(len(embeds)),
        "position": np.zeros(1, np.int64),
    }
    expected |= seen_by_onnx_runtime(tmp_path / DECODER_GRAPH, feeds)
    checked = 0
    for site in sites(spec):
        for reader in site.readers:
            if reader in expected:
                np.testing.assert_allclose(
                    got.inputs[reader], expected[reader], rtol=1e-3, atol=1e-5
                )
                checked += 1
            np.testing.assert_array_equal(
                got.weights[reader], np.abs(source.tensor(f"{reader}.weight")).max(0)
            )
    assert (
        checked == 6 * spec.vision.feature_layers + 2 + 5 * spec.text.layers
    )  # k and v of the decoder are part of q


def test_peaks_are_the_largest_of_all_samples(checkpoint: Path, noise: Path) -> None:
    source = Checkpoint(checkpoint)
    together, first = record(source, noise, samples=3), record(source, noise, samples=1)
    grown = [
        (together.inputs[name] >= first.inputs[name] * (1 - 1e-6)).all() for name in first.inputs
    ]
    assert all(grown)
    assert any((together.inputs[name] > first.inputs[name]).any() for name in first.inputs)


def test_memory_does_not_grow_with_the_layers(tmp_path: Path, noise: Path) -> None:
    """One layer's weights and the samples' states are held, whatever the number of layers."""
    peaks = []
    for layers in (2, 8):
        made = tiny.make_checkpoint(
            tmp_path / str(layers), layers=layers, vision_layers=layers, ffn=1024, hidden=128
        )
        source = Checkpoint(made)
        record(source, noise, samples=1)  # imports
        tracemalloc.start()
        record(source, noise, samples=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    weights = 4 * 6 * (3 * 128 * 1024 + 4 * 128 * 128)  # bytes of six decoder layers
    assert weights > 10_000_000
    assert peaks[1] < peaks[0] + 0.1 * weights


def test_every_tensor_is_read_once(checkpoint: Path, noise: Path) -> None:
    source, asked = Checkpoint(checkpoint), []

    def counting(name: str) -> Floats:
        asked.append(name)
        return source.tensor(name)

    calibrate(source.path, source.spec, counting, Recipe(noise, samples=3))
    assert len(asked) == len(set(asked))
    assert set(source.names) - set(asked) <= {"lm_head.weight", "norm.weight", "image_newline"}


# -- folding


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"kv_heads": 1, "projector": "linear"}])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85])
def test_the_smoothed_model_is_the_same_model(
    checkpoints: Checkpoints, options: dict[str, Any], alpha: float, noise: Path
) -> None:
    """In double precision, so that what remains is the rounding of the float32 weights that were
    folded into.
    """
    source = Checkpoint(checkpoints(**options))
    smoothed = Smoothed(source.tensor, source.spec, record(source, noise, alpha=alpha))
    explicit = set()

    def linear(x: reference.Array, tensor: reference.Tensor, name: str) -> reference.Array:
        factor = smoothed.factor(name)
        if factor is not None:
            explicit.add(name)
            x = x * factor
        return reference.linear_layer(x, tensor, name)

    rng = np.random.default_rng(0)
    pixels, embeds = rng.normal(size=(2, 3, 56, 56)), rng.normal(size=(20, 64))
    expected = reference.vision_features(pixels, source.spec, source.tensor)
    assert relative(features_by(pixels, source.spec, smoothed, linear), expected) < 1e-6
    expected = reference.logits(embeds, source.spec, source.tensor)
    assert relative(logits_by(embeds, source.spec, smoothed, linear), expected) < 1e-6
    depth = source.spec.projector_depth
    last = {f"vision.encoder.layers.{i}.mlp.fc2" for i in range(2)} | {
        f"projector.{2 * d}" for d in range(depth)
    }
    assert explicit == (last if alpha else set())
    changed = [n for n in source.names if not np.array_equal(smoothed(n), source.tensor(n))]
    assert bool(changed) == bool(alpha)
    assert not {
        n
        for n in changed
        if "embed" in n or n in ("norm.weight", "lm_head.weight", "image_newline")
    }


def test_smoothed_channels_are_balanced(checkpoint: Path, noise: Path) -> None:
    """With alpha 0.5 the largest input and the largest weight of each channel meet at their
    geometric mean.
    """
    source = Checkpoint(checkpoint)
    calibration = record(source, noise)
    smoothed = Smoothed(source.tensor, source.spec, calibration)
    name = "layers.1.mlp.down_proj"
    after = np.abs(smoothed(f"{name}.weight")).max(axis=0)
    mean = np.sqrt(calibration.inputs[name] * calibration.weights[name])
    np.testing.assert_allclose(after, mean, rtol=1e-5)
    assert smoothed.scale(name) == pytest.approx(mean.max() / 127, rel=1e-5)


def test_parts_that_are_not_asked_for_stay_as_they_are(checkpoint: Path, noise: Path) -> None:
    source = Checkpoint(checkpoint)
    smoothed = Smoothed(source.tensor, source.spec, record(source, noise), ["decoder"])
    changed = {
        n.split(".")[0] for n in source.names if not np.array_equal(smoothed(n), source.tensor(n))
    }
    assert changed == {"layers"}


def test_a_dead_channel_is_left_alone(checkpoint: Path, noise: Path) -> None:
    source = Checkpoint(checkpoint)
    calibration = record(source, noise)
    name = "layers.0.mlp.gate_proj"
    inputs = calibration.inputs[name].copy()
    inputs[:3] = 0
    dead = replace(calibration, inputs=calibration.inputs | {name: inputs})
    smoothed = Smoothed(source.tensor, source.spec, dead)
    np.testing.assert_array_equal(
        smoothed(f"{name}.weight")[:, :3], source.tensor(f"{name}.weight")[:, :3]
    )
    assert all(np.isfinite(smoothed(n)).all() for n in source.names)
    nothing = replace(
        calibration, inputs={n: np.zeros_like(v) for n, v in calibration.inputs.items()}
    )
    assert Smoothed(source.tensor, source.spec, nothing).scale(name) > 0


# -- the graphs


def simulated(smoothed: Smoothed, exact: bool = False, dynamic: bool = False) -> reference.Linear:
    """A linear layer whose input and weights are rounded to int8, as the Q/DQ graphs have them.
    `dynamic`: as the CPU's graphs do, which scale each token by what it holds, and weights to 7
    bits.
    """

    def linear(x: reference.Array, tensor: reference.Tensor, name: str) -> reference.Array:
        factor = smoothed.factor(name)
        x = (x if factor is None else x * factor).astype(np.float32)
        if not exact:
            scale = (
                np.abs(x).max(axis=-1, keepdims=True) / 127
                if dynamic
                else np.float32(smoothed.scale(name))
            )
            x = np.clip(np.rint(x / scale), -128, 127) * scale
        weight = np.asarray(tensor(f"{name}.weight"), np.float32)
        return (
            x
            @ quantize(weight, 7 if dynamic else 8, weight.shape[1], signed=dynamic).dequantize().T
        )

    return linear


def test_the_graphs_compute_the_simulated_model(
    checkpoints: Checkpoints, tmp_path: Path, noise: Path
) -> None:
    """In fp32, against numpy that rounds as the graph says. A sum's last bit can tip a code, so
    they are only close; what the rounding of activations does is several times as much.
    """
    source = Checkpoint(checkpoints(kv_heads=2))
    spec = source.spec
    smoothed = Smoothed(source.tensor, spec, record(source, noise))
    sample = sample_of(source, noise)
    pixels = images.preprocess(sample.page, spec)
    embeds = reference.splice(
        sample.ids, reference.vision_features(pixels, spec, source.tensor)[0], source.tensor
    )
    row = replace(PRECISIONS["w8a8"], head="fp32")
    results = {}
    for file, write in ((VISION_GRAPH, write_vision), (DECODER_GRAPH, write_decoder)):
        graph = Graph(tmp_path / file, tensorrt.FULL.opsets)
        write(NetworkWriter(graph, tensorrt.FULL, row, 0, smoothed, smoothed), spec)
        graph.save()
        onnx.checker.check_model(str(tmp_path / file), full_check=True)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(
            str(tmp_path / file), options, providers=["CPUExecutionProvider"]
        )
        feeds: dict[str, Any] = {"pixels": pixels}
        if file == DECODER_GRAPH:
            rows = {"logit_rows": np.arange(len(embeds)), "position": np.zeros(1, np.int64)}
            past = {
                i.name: np.zeros(i.shape, np.float32)
                for i in session.get_inputs()
                if i.name.startswith("past.")
            }
            feeds = {"inputs_embeds": embeds[None]} | rows | past
        results[file] = session.run(None if file == VISION_GRAPH else ["logits"], feeds)[0]
    for got, run, x in (
        (results[VISION_GRAPH], features_by, pixels),
        (results[DECODER_GRAPH], logits_by, embeds),
    ):
        rounded, floats = (
            run(x, spec, smoothed, simulated(smoothed, exact)) for exact in (False, True)
        )
        error = float(np.linalg.norm(got - rounded) / np.linalg.norm(rounded))
        effect = float(np.linalg.norm(floats - rounded) / np.linalg.norm(rounded))
        assert error < 0.2 * effect, (error, effect)


def test_a_target_that_scales_at_run_time_takes_the_smoothing_alone(
    checkpoint: Path, tmp_path: Path, noise: Path
) -> None:
    """Folded weights and explicit factors come from `NetworkWriter`; no scale of an activation is
    in the graph.
    """
    source = Checkpoint(checkpoint)
    smoothed = Smoothed(source.tensor, source.spec, record(source, noise))
    graph = Graph(tmp_path / VISION_GRAPH, onnxruntime.CPU.opsets)
    write_vision(
        NetworkWriter(graph, onnxruntime.CPU, PRECISIONS["w8a8"], 0, smoothed, smoothed),
        source.spec,
    )
    graph.save()
    session = ort.InferenceSession(str(tmp_path / VISION_GRAPH), providers=["CPUExecutionProvider"])
    pixels = images.preprocess(page(5), source.spec)
    got = session.run(["features"], {"pixels": pixels})[0]
    rounded, floats = (
        features_by(pixels, source.spec, smoothed, simulated(smoothed, exact, dynamic=True))
        for exact in (False, True)
    )
    assert np.linalg.norm(got - rounded) < 0.2 * np.linalg.norm(floats - rounded)


def kinds(path: Path) -> dict[str, int]:
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {
        kind: sum(n.op_type == kind for n in nodes)
        for kind in ("QuantizeLinear", "DequantizeLinear", "MatMul")
    }


@pytest.fixture(scope="module")
def w8a8(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory, noise: Path) -> Path:
    out = tmp_path_factory.mktemp("w8a8") / "bundle"
    export(
        checkpoints(),
        out,
        precision="w8a8",
        target="standard",
        calibration=Recipe(noise, samples=2),
    )
    return out


def test_what_is_quantized(w8a8: Path) -> None:
    """Four activations a layer, the projector's two; every weight but the patch embedding's.

    The head: weights only.
    """
    assert kinds(w8a8 / DECODER_GRAPH) == {
        "QuantizeLinear": 8,
        "DequantizeLinear": 8 + 11,
        "MatMul": 11,
    }
    assert kinds(w8a8 / VISION_GRAPH) == {
        "QuantizeLinear": 10,
        "DequantizeLinear": 10 + 14,
        "MatMul": 15,
    }
    made = open_bundle(w8a8).manifest.precision
    assert (made.decoder, made.head, made.vision, made.embeddings) == (
        "w8a8",
        "int8",
        "w8a8",
        "fp16",
    )
    assert made.activations == "int8, static, per tensor"


def test_int8_products_are_float32(w8a8: Path) -> None:
    """Sums of products of codes leave TensorRT's kernel unscaled, in the MatMul's type; float16
    would overflow.
    """
    model = onnx.load(w8a8 / DECODER_GRAPH)
    scales = {t.name: t.data_type for t in model.graph.initializer}
    made_by = {o: n for n in model.graph.node for o in n.output}
    products = [
        n for n in model.graph.node if n.op_type == "MatMul" and n.name.endswith(".product")
    ]
    assert len(products) == 10
    for node in products:
        for factor in node.input:
            assert made_by[factor].op_type == "DequantizeLinear"
            assert scales[made_by[factor].input[1]] == onnx.TensorProto.FLOAT


def test_it_answers(w8a8: Path, bundle: Path) -> None:
    """From the bundle, through ONNX Runtime; and its logits are near fp32's, on inputs that go
    beyond the scales which two pages of noise have given.
    """
    answer = pulse_edge.load(w8a8, device="cpu", threads=1).ask(
        page(9), "What is the rate?", max_new_tokens=4
    )
    assert answer.usage.new_tokens == 4
    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    got, expected = (
        open_engine(open_bundle(path), EngineOptions("cpu", threads=1)).step(x)
        for path in (w8a8, bundle)
    )
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.15


def test_smoothing_saves_a_model_with_outliers(tmp_path: Path, noise: Path) -> None:
    """A few channels of the norms' outputs 60 times as large, and their weights as much smaller:
    the same model in fp32, and one whose activations do not fit 8 bits, as in trained language
    models.
    """
    source = Checkpoint(tiny.make_checkpoint(tmp_path / "plain"))
    loud = np.ones(64, np.float32)
    loud[[3, 17, 40]] = 60

    def tensors(name: str) -> Floats:
        tensor = source.tensor(name)
        if name.startswith("layers.") and "norm" in name:
            return tensor * loud
        if name.startswith("layers.") and any(
            p in name for p in ("q_proj", "k_proj", "v_proj", "gate_", "up_")
        ):
            return tensor / loud
        return tensor

    embeds = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    expected = reference.logits(embeds, source.spec, source.tensor)
    errors = []
    for alpha in (0, 0.5):
        calibration = calibrate(
            source.path, source.spec, tensors, Recipe(noise, samples=2, alpha=alpha)
        )
        smoothed = Smoothed(tensors, source.spec, calibration)
        got = logits_by(embeds, source.spec, smoothed, simulated(smoothed))
        errors.append(float(np.linalg.norm(got - expected) / np.linalg.norm(expected)))
    assert 4 * errors[1] < errors[0]
    assert errors[1] < 0.05
