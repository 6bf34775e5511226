"""SmoothQuant: what a calibration sees, that folding changes nothing but rounding, and the W8A8 graphs it makes."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from click.testing import CliRunner
from fixture_types import Checkpoints
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")
pytest.importorskip("onnxruntime", "1.25", reason="ONNX Runtime 1.24 has no TensorScatter")

import onnx
import onnxruntime as ort

import pulse_edge
from pulse_edge import image as images
from pulse_edge.backends import EngineOptions, open_engine
from pulse_edge.bundle import DECODER_GRAPH, VISION_GRAPH, ModelSpec, open_bundle
from pulse_edge.cli import cli
from pulse_edge.errors import ExportError, ImageError
from pulse_edge.export import reference
from pulse_edge.export.calibrate import Calibration, Recipe, calibrate
from pulse_edge.export.checkpoint import Checkpoint, Tensors
from pulse_edge.export.decoder import write_decoder
from pulse_edge.export.graph import Graph
from pulse_edge.export.net import Net
from pulse_edge.export.pipeline import export
from pulse_edge.export.precision import PRECISIONS, quantize
from pulse_edge.export.samples import DataHash, Sample, read_samples
from pulse_edge.export.smooth import Smoothed, sites
from pulse_edge.export.targets import standard
from pulse_edge.export.vision import write_vision
from pulse_edge.prompt import IMAGE, PromptBuilder, Tokenizer

Floats = NDArray[np.float32]
TURNS = [{"from": "human", "value": "<image>\nWhat is the rate?"}, {"from": "gpt", "value": "72 beats per minute."}]


def page(seed: int, size: tuple[int, int] = (130, 100)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pages in a directory, and conversations about them beside it."""
    folder = tmp_path / "pages"
    folder.mkdir()
    rows = []
    for i in range(3):
        page(i).save(folder / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": TURNS * (i + 1)})
    (tmp_path / "prompts.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of three small pages; simulated ones take a second each."""
    folder = tmp_path_factory.mktemp("noise")
    for i in range(3):
        page(i).save(folder / f"{i}.png")
    return folder


def record(source: Checkpoint, pages: Path, samples: int = 3, alpha: float = 0.5) -> Calibration:
    return calibrate(source.path, source.spec, source.tensor, Recipe(pages, samples=samples, alpha=alpha))


def sample_of(source: Checkpoint, pages: Path) -> Sample:
    return next(read_samples(source.path, source.spec, 1, pages))


def relative(got: reference.Array, expected: reference.Array) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


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


def logits_by(embeds: reference.Array, spec: ModelSpec, tensors: Tensors, linear: reference.Linear) -> reference.Array:
    for i in range(spec.text.layers):
        embeds = reference.decoder_layer(embeds, i, spec, tensors, None, linear)
    normed = reference.rms_norm(embeds, tensors("norm.weight").astype(embeds.dtype), spec.text.eps)
    return reference.linear(normed, tensors, "lm_head")


# -- what is measured


def seen_by_onnx_runtime(path: Path, feeds: dict[str, Any]) -> dict[str, Floats]:
    """Largest magnitude of each column of every MatMul's input in a graph."""
    model = onnx.load(path)
    reads = {n.input[0] for n in model.graph.node if n.op_type == "MatMul"}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(reads))
    onnx.save(model, path.with_name("observed.onnx"))
    session = ort.InferenceSession(str(path.with_name("observed.onnx")), providers=["CPUExecutionProvider"])
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
        graph = Graph(tmp_path / file, standard.FULL.opsets)
        write(Net(graph, standard.FULL, PRECISIONS["fp32"], 0, source.tensor), spec)
        graph.save()
    pixels = images.preprocess(sample.page, spec)
    expected = seen_by_onnx_runtime(tmp_path / VISION_GRAPH, {"pixels": pixels})
    newline = source.tensor("image_newline") if spec.image.merge == "spatial_unpad" else None
    features = reference.vision_features(pixels, spec, source.tensor)
    embeds = reference.splice(sample.ids, reference.merge(features, sample.page.size, spec, newline), source.tensor)
    feeds = {"inputs_embeds": embeds[None], "logit_rows": np.arange(len(embeds)), "position": np.zeros(1, np.int64)}
    expected |= seen_by_onnx_runtime(tmp_path / DECODER_GRAPH, feeds)
    checked = 0
    for site in sites(spec):
        for reader in site.readers:
            if reader in expected:
                np.testing.assert_allclose(got.inputs[reader], expected[reader], rtol=1e-3, atol=1e-5)
                checked += 1
            np.testing.assert_array_equal(got.weights[reader], np.abs(source.tensor(f"{reader}.weight")).max(0))
    assert checked == 6 * spec.vision.feature_layers + 2 + 5 * spec.text.layers  # k and v of the decoder are part of q


def test_peaks_are_the_largest_of_all_samples(checkpoint: Path, noise: Path) -> None:
    source = Checkpoint(checkpoint)
    together, first = record(source, noise, samples=3), record(source, noise, samples=1)
    grown = [(together.inputs[name] >= first.inputs[name] * (1 - 1e-6)).all() for name in first.inputs]
    assert all(grown)
    assert any((together.inputs[name] > first.inputs[name]).any() for name in first.inputs)


def test_memory_does_not_grow_with_the_layers(tmp_path: Path, noise: Path) -> None:
    """One layer's weights and the samples' states are held, whatever the number of layers."""
    peaks = []
    for layers in (2, 8):
        made = tiny.make_checkpoint(tmp_path / str(layers), layers=layers, vision_layers=layers, ffn=1024, hidden=128)
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
    """In double precision, so that what remains is the rounding of the float32 weights that were folded into."""
    source = Checkpoint(checkpoints(**options))
    smoothed = Smoothed(source.tensor, source.spec, record(source, noise, alpha=alpha))
    explicit = set()

    def linear(x: reference.Array, tensor: reference.Tensor, name: str) -> reference.Array:
        factor = smoothed.factor(name)
        if factor is not None:
            explicit.add(name)
            x = x * factor
        return reference.linear(x, tensor, name)

    rng = np.random.default_rng(0)
    pixels, embeds = rng.normal(size=(2, 3, 56, 56)), rng.normal(size=(20, 64))
    expected = reference.vision_features(pixels, source.spec, source.tensor)
    assert relative(features_by(pixels, source.spec, smoothed, linear), expected) < 1e-6
    expected = reference.logits(embeds, source.spec, source.tensor)
    assert relative(logits_by(embeds, source.spec, smoothed, linear), expected) < 1e-6
    depth = source.spec.projector_depth
    last = {f"vision.encoder.layers.{i}.mlp.fc2" for i in range(2)} | {f"projector.{2 * d}" for d in range(depth)}
    assert explicit == (last if alpha else set())
    changed = [n for n in source.names if not np.array_equal(smoothed(n), source.tensor(n))]
    assert bool(changed) == bool(alpha)
    assert not {n for n in changed if "embed" in n or n in ("norm.weight", "lm_head.weight", "image_newline")}


def test_smoothed_channels_are_balanced(checkpoint: Path, noise: Path) -> None:
    """With alpha 0.5 the largest input and the largest weight of each channel meet at their geometric mean."""
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
    changed = {n.split(".")[0] for n in source.names if not np.array_equal(smoothed(n), source.tensor(n))}
    assert changed == {"layers"}


def test_a_dead_channel_is_left_alone(checkpoint: Path, noise: Path) -> None:
    source = Checkpoint(checkpoint)
    calibration = record(source, noise)
    name = "layers.0.mlp.gate_proj"
    inputs = calibration.inputs[name].copy()
    inputs[:3] = 0
    dead = replace(calibration, inputs=calibration.inputs | {name: inputs})
    smoothed = Smoothed(source.tensor, source.spec, dead)
    np.testing.assert_array_equal(smoothed(f"{name}.weight")[:, :3], source.tensor(f"{name}.weight")[:, :3])
    assert all(np.isfinite(smoothed(n)).all() for n in source.names)
    nothing = replace(calibration, inputs={n: np.zeros_like(v) for n, v in calibration.inputs.items()})
    assert Smoothed(source.tensor, source.spec, nothing).scale(name) > 0


# -- the graphs


def simulated(smoothed: Smoothed, exact: bool = False) -> reference.Linear:
    """A linear layer whose input and weights are rounded to int8, as the Q/DQ graphs have them."""

    def linear(x: reference.Array, tensor: reference.Tensor, name: str) -> reference.Array:
        factor = smoothed.factor(name)
        x = (x if factor is None else x * factor).astype(np.float32)
        if not exact:
            scale = np.float32(smoothed.scale(name))
            x = np.clip(np.rint(x / scale), -128, 127) * scale
        weight = np.asarray(tensor(f"{name}.weight"), np.float32)
        return x @ quantize(weight, 8, weight.shape[1], signed=False).dequantize().T

    return linear


def test_the_graphs_compute_the_simulated_model(checkpoints: Checkpoints, tmp_path: Path, noise: Path) -> None:
    """In fp32, against numpy that rounds as the graph says. A sum's last bit can tip a code, so they are only close;
    what the rounding of activations does is several times as much."""
    source = Checkpoint(checkpoints(kv_heads=2))
    spec = source.spec
    smoothed = Smoothed(source.tensor, spec, record(source, noise))
    sample = sample_of(source, noise)
    pixels = images.preprocess(sample.page, spec)
    embeds = reference.splice(sample.ids, reference.vision_features(pixels, spec, source.tensor)[0], source.tensor)
    row = replace(PRECISIONS["w8a8"], head="fp32")
    results = {}
    for file, write in ((VISION_GRAPH, write_vision), (DECODER_GRAPH, write_decoder)):
        graph = Graph(tmp_path / file, standard.FULL.opsets)
        write(Net(graph, standard.FULL, row, 0, smoothed, smoothed), spec)
        graph.save()
        onnx.checker.check_model(str(tmp_path / file), full_check=True)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(tmp_path / file), options, providers=["CPUExecutionProvider"])
        feeds: dict[str, Any] = {"pixels": pixels}
        if file == DECODER_GRAPH:
            rows = {"logit_rows": np.arange(len(embeds)), "position": np.zeros(1, np.int64)}
            past = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name.startswith("past.")}
            feeds = {"inputs_embeds": embeds[None]} | rows | past
        results[file] = session.run(None if file == VISION_GRAPH else ["logits"], feeds)[0]
    for got, run, x in (
        (results[VISION_GRAPH], features_by, pixels),
        (results[DECODER_GRAPH], logits_by, embeds),
    ):
        rounded, floats = (run(x, spec, smoothed, simulated(smoothed, exact)) for exact in (False, True))
        error = float(np.linalg.norm(got - rounded) / np.linalg.norm(rounded))
        effect = float(np.linalg.norm(floats - rounded) / np.linalg.norm(rounded))
        assert error < 0.2 * effect, (error, effect)


def kinds(path: Path) -> dict[str, int]:
    nodes = onnx.load(path, load_external_data=False).graph.node
    return {kind: sum(n.op_type == kind for n in nodes) for kind in ("QuantizeLinear", "DequantizeLinear", "MatMul")}


@pytest.fixture(scope="module")
def w8a8(checkpoints: Checkpoints, tmp_path_factory: pytest.TempPathFactory, noise: Path) -> Path:
    out = tmp_path_factory.mktemp("w8a8") / "bundle"
    export(checkpoints(), out, precision="w8a8", target="standard", calibration=Recipe(noise, samples=2))
    return out


def test_what_is_quantized(w8a8: Path) -> None:
    """Four activations a layer, the projector's two; every weight but the patch embedding's. The head: weights only."""
    assert kinds(w8a8 / DECODER_GRAPH) == {"QuantizeLinear": 8, "DequantizeLinear": 8 + 11, "MatMul": 11}
    assert kinds(w8a8 / VISION_GRAPH) == {"QuantizeLinear": 10, "DequantizeLinear": 10 + 14, "MatMul": 15}
    made = open_bundle(w8a8).manifest.precision
    assert (made.decoder, made.head, made.vision, made.embeddings) == ("w8a8", "int8", "w8a8", "fp16")
    assert made.activations == "int8, static, per tensor"


def test_int8_products_are_float32(w8a8: Path) -> None:
    """Sums of products of codes leave TensorRT's kernel unscaled, in the MatMul's type; float16 would overflow."""
    model = onnx.load(w8a8 / DECODER_GRAPH)
    scales = {t.name: t.data_type for t in model.graph.initializer}
    made_by = {o: n for n in model.graph.node for o in n.output}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.name.endswith(".product")]
    assert len(products) == 10
    for node in products:
        for factor in node.input:
            assert made_by[factor].op_type == "DequantizeLinear"
            assert scales[made_by[factor].input[1]] == onnx.TensorProto.FLOAT


def test_it_answers(w8a8: Path, bundle: Path) -> None:
    """From the bundle, through ONNX Runtime; and its logits are near fp32's."""
    answer = pulse_edge.load(w8a8, threads=1).ask(page(9), "What is the rate?", max_new_tokens=4)
    assert answer.usage.new_tokens == 4
    x = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    got, expected = (open_engine(open_bundle(path), EngineOptions(threads=1)).step(x) for path in (w8a8, bundle))
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.05


def test_smoothing_saves_a_model_with_outliers(tmp_path: Path, noise: Path) -> None:
    """A few channels of the norms' outputs 60 times as large, and their weights as much smaller: the same model in
    fp32, and one whose activations do not fit 8 bits, as in trained language models."""
    source = Checkpoint(tiny.make_checkpoint(tmp_path / "plain"))
    loud = np.ones(64, np.float32)
    loud[[3, 17, 40]] = 60

    def tensors(name: str) -> Floats:
        tensor = source.tensor(name)
        if name.startswith("layers.") and "norm" in name:
            return tensor * loud
        if name.startswith("layers.") and any(p in name for p in ("q_proj", "k_proj", "v_proj", "gate_", "up_")):
            return tensor / loud
        return tensor

    embeds = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    expected = reference.logits(embeds, source.spec, source.tensor)
    errors = []
    for alpha in (0, 0.5):
        calibration = calibrate(source.path, source.spec, tensors, Recipe(noise, samples=2, alpha=alpha))
        smoothed = Smoothed(tensors, source.spec, calibration)
        got = logits_by(embeds, source.spec, smoothed, simulated(smoothed))
        errors.append(float(np.linalg.norm(got - expected) / np.linalg.norm(expected)))
    assert 4 * errors[1] < errors[0]
    assert errors[1] < 0.05


# -- the recipe in the manifest


def exported(checkpoint: Path, out: Path, recipe: Recipe) -> Any:
    export(checkpoint, out, precision="w8a8", target="standard", calibration=recipe)
    return open_bundle(out)


def test_the_manifest_names_recipe_and_data(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    recipe = Recipe(data / "pages", data / "prompts.json", samples=2, alpha=0.25)
    first = exported(checkpoint, tmp_path / "a", recipe)
    source, digest = Checkpoint(checkpoint), DataHash()
    for sample in read_samples(source.path, source.spec, 2, data / "pages", data / "prompts.json"):
        digest.add(sample)
    said = "RTN symmetric, int8 per output, w8a8 per output, SmoothQuant alpha 0.25, absmax of 2 samples, data sha256 "
    assert first.manifest.precision.recipe == said + digest.hex
    again = exported(checkpoint, tmp_path / "b", recipe)
    assert again.digest == first.digest
    (data / "prompts.json").write_text((data / "prompts.json").read_text().replace("72 beats", "71 beats"))
    other = exported(checkpoint, tmp_path / "c", recipe)
    assert other.manifest.precision.recipe != first.manifest.precision.recipe
    page(77).save(data / "pages" / "1.png")
    last = exported(checkpoint, tmp_path / "d", replace(recipe, samples=3, alpha=0))
    assert "no smoothing, absmax of 3 samples" in last.manifest.precision.recipe


# -- samples


def test_conversations_are_prompted_as_the_runtime_does(checkpoint: Path, data: Path) -> None:
    source = Checkpoint(checkpoint)
    spec = source.spec
    samples = {Path(s.name).name: s for s in read_samples(checkpoint, spec, 3, prompts=data / "prompts.json",
                                                          images=data / "pages")}  # fmt: skip
    assert sorted(samples) == ["0.png", "1.png", "2.png"]
    tokenizer = Tokenizer(checkpoint / "tokenizer.model", spec.prompt.legacy)
    builder = PromptBuilder(spec.prompt, tokenizer, spec.text.bos, spec.text.eos[0])
    one = [*builder.first_turn("What is the rate?"), *tokenizer.encode("72 beats per minute.")]
    two = [*one, *builder.next_turn("What is the rate?"), *tokenizer.encode("72 beats per minute.")]
    assert list(samples["0.png"].ids) == one
    assert list(samples["1.png"].ids) == two
    assert np.array_equal(np.asarray(samples["1.png"].page), np.asarray(page(1)))


def test_images_may_lie_beside_the_prompts(checkpoint: Path, data: Path) -> None:
    rows = json.loads((data / "prompts.json").read_text())
    (data / "pages" / "here.json").write_text(json.dumps(rows[:2]))
    spec = Checkpoint(checkpoint).spec
    assert len(list(read_samples(checkpoint, spec, 16, prompts=data / "pages" / "here.json"))) == 2


def test_pages_alone_are_asked_built_in_questions(checkpoint: Path, data: Path) -> None:
    spec = Checkpoint(checkpoint).spec
    samples = list(read_samples(checkpoint, spec, 2, data / "pages"))
    assert len({s.name for s in samples}) == 2
    assert len({s.ids for s in samples}) == 2
    assert [s.ids for s in read_samples(checkpoint, spec, 2, data / "pages")] == [s.ids for s in samples]


def test_simulated_pages_fit_the_context(checkpoints: Checkpoints) -> None:
    """The conversation is cut where the context ends; another page has another recording and other answers."""
    made = checkpoints(context=200)
    spec = Checkpoint(made).spec
    samples = list(read_samples(made, spec, 2))
    tokens = images.token_count(samples[0].page.size, spec)
    assert {len(s.ids) - 1 + tokens for s in samples} == {200}
    assert samples[0].ids.count(IMAGE) == 1
    assert not np.array_equal(np.asarray(samples[0].page), np.asarray(samples[1].page))


def test_a_page_that_does_not_fit_the_context(checkpoints: Checkpoints) -> None:
    made = checkpoints(context=64)
    with pytest.raises(ExportError, match=r"simulated page 0: the page's 80 tokens do not fit the context"):
        list(read_samples(made, Checkpoint(made).spec, 1))


# -- what is wrong


def broken(rows: Any) -> Callable[[Path], None]:
    return lambda data: (data / "prompts.json").write_text(rows if isinstance(rows, str) else json.dumps(rows)) and None


WRONG = {
    "not JSON": ("[{", r"prompts.json: not JSON"),
    "no list": ({"id": 1}, r"prompts.json: must be a list of conversations"),
    "empty": ([], r"prompts.json: must be a list of conversations"),
    "no object": ([3], r"prompts.json\[0\]: must be an object that names an image"),
    "no image named": ([{"id": "a", "conversations": TURNS}], r"\[0\]: must be an object that names an image"),
    "missing image": ([{"image": "no.png", "conversations": TURNS}], r"\[0\]: there is no image 'no.png' in .*pages"),
    "odd name": ([{"image": "a\0b", "conversations": TURNS}], r"\[0\]: there is no image"),
    "no turns": ([{"image": "0.png"}], r"\[0\]: conversations must be a list of turns"),
    "answer first": ([{"image": "0.png", "conversations": TURNS[::-1]}], r"\[0\]: turn 0 must be .* from 'human'"),
    "no text": ([{"image": "0.png", "conversations": [{"from": "human", "value": 3}]}], r"turn 0 must be an object"),
    "says nothing": (
        [{"image": "0.png", "conversations": [{"from": "human", "value": "<image>\n "}]}], r"turn 0 says nothing",
    ),
    "second entry": ([{"image": "0.png", "conversations": TURNS}, {}], r"prompts.json\[1\]: must be an object"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_prompts_that_are_refused(checkpoint: Path, data: Path, tmp_path: Path, case: str) -> None:
    rows, message = WRONG[case]
    (data / "prompts.json").write_text(rows if isinstance(rows, str) else json.dumps(rows))
    recipe = Recipe(data / "pages", data / "prompts.json", samples=1)
    with pytest.raises(ExportError, match=message):
        export(checkpoint, tmp_path / "out", precision="w8a8", target="standard", calibration=recipe)
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == []


def test_other_mistakes(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    spec = Checkpoint(checkpoint).spec
    with pytest.raises(ExportError, match="no such directory of calibration images"):
        read_samples(checkpoint, spec, 1, tmp_path / "nowhere")
    with pytest.raises(ExportError, match=r"nowhere.json: cannot be read \(No such file"):
        read_samples(checkpoint, spec, 1, prompts=tmp_path / "nowhere.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="holds no page"):
        read_samples(checkpoint, spec, 1, tmp_path / "empty")
    (data / "pages" / "0.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"0.png"):
        list(read_samples(checkpoint, spec, 3, data / "pages"))


@pytest.mark.parametrize(("name", "value"), [("samples", 0), ("samples", 5000), ("alpha", -0.1), ("alpha", 1.5)])
def test_recipes_that_are_refused(name: str, value: float) -> None:
    with pytest.raises(ExportError, match=f"{name}.* {value}, must be"):
        Recipe(**{name: value})


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_targets_that_do_not_run_it(checkpoint: Path, tmp_path: Path, target: str) -> None:
    with pytest.raises(ExportError, match=f"target {target} does not run w8a8: it supports weights in"):
        export(checkpoint, tmp_path / "out", precision="w8a8", target=target)


def test_from_the_command_line(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    command = ["export", str(checkpoint), out, "--target", "standard", "--precision", "w8a8"]
    options = ["--calibration", str(data / "pages"), "--prompts", str(data / "prompts.json"), "--samples", "2"]
    done = CliRunner().invoke(cli, [*command, *options, "--smoothing", "0.75"])
    assert done.exit_code == 0, done.exception
    assert "SmoothQuant alpha 0.75, absmax of 2 samples" in open_bundle(out).manifest.precision.recipe
    refused = CliRunner().invoke(cli, [*command[:2], str(tmp_path / "b"), "--precision", "int8", *options])
    assert "precision int8 quantizes no activations, so it takes no calibration data" in str(refused.exception)
    refused = CliRunner().invoke(cli, [*command, "--force", "--smoothing", "2"])
    assert "SmoothQuant's alpha is 2.0, must be 0 (off) to 1" in str(refused.exception)
