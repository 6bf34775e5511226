"""`--network optimum`: towers that Optimum exports, against torch's modules and our own tower.

optimum-onnx 0.1 takes transformers below 4.58, so these tests have an environment of their own:
`pip install torch==2.13.0` (of the CPU's index) and then `pip install -e '.[test,optimum]'`.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.cli import cli
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import CheckpointError, ExportError
from pulse_edge.page.tokens import token_count
from pulse_edge.page.views import preprocess
from pulse_edge.text.template import IMAGE, PromptBuilder
from pulse_export import verify
from pulse_export.checkpoint import Checkpoint
from pulse_export.pipeline import export
from pulse_export.quantize.recipe import Recipe

from goldens import cases
from support import other_towers, tiny
from support.damage import edit
from support.numbers import relative

WHERE = "Optimum's tests have an environment of their own: pip install -e '.[test,optimum]'"
torch = pytest.importorskip("torch", reason=WHERE)
transformers = pytest.importorskip("transformers", reason=WHERE)
pytest.importorskip("optimum.exporters.onnx.model_configs", reason=WHERE, exc_type=ImportError)
optimum = pytest.importorskip("pulse_export.network.optimum.tower")

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4  # relative to the largest value
NEW_TOKENS = 24
QUESTION = "What does this electrocardiogram show?"


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A LLaVA-NeXT with a SigLIP tower: its directory, and transformers' model of it."""
    path = tmp_path_factory.mktemp("towers") / "siglip"
    return path, other_towers.make_checkpoint(path)


def features(bundle: Path, pixels: np.ndarray) -> np.ndarray:
    engine = open_engine(open_bundle(bundle), EngineOptions(threads=1))
    return np.asarray(engine.encode(pixels), np.float32)


def noise(views: int, side: int = other_towers.SIDE) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (views, 3, side, side)).astype(np.float32)


def huggingface_features(model: Any, pixels: np.ndarray, layer: int, dropped: int) -> np.ndarray:
    with torch.inference_mode():
        out = model.model.vision_tower(torch.tensor(pixels), output_hidden_states=True)
        projected = model.model.multi_modal_projector(out.hidden_states[layer][:, dropped:])
    return np.asarray(projected)


@pytest.mark.parametrize(
    ("layout", "activation", "select"),
    [("llava", "quick_gelu", -2), ("llava", "gelu", 1), ("hf_next", "quick_gelu", -1)],
)
def test_clips_tower_is_ours(tmp_path: Path, layout: str, activation: str, select: int) -> None:
    """Optimum's tower as the oracle of our own."""
    path = tiny.make_checkpoint(tmp_path / "source", layout=layout, select_layer=select)
    if layout == "llava":
        edit(path, "vision_config.json", hidden_act=activation)
    pixels = noise(3, tiny.Geometry().image_size)
    for network in ("own", "optimum"):
        export(path, tmp_path / network, precision="fp32", network=network)
    ours, theirs = (open_bundle(tmp_path / n).manifest for n in ("own", "optimum"))
    assert ours.model == theirs.model
    assert ours.tower is None
    assert theirs.tower is not None
    assert theirs.tower.family == "clip_vision_model"
    expected = features(tmp_path / "optimum", pixels)
    assert relative(features(tmp_path / "own", pixels), expected) < TOLERANCE


@pytest.mark.parametrize("size", [(150, 110), (110, 150)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize(
    ("following", "processor"),
    [(True, "LlavaNext"), (False, "Siglip"), (False, "CLIP")],
    ids=["next", "llava", "llava cropped"],
)
def test_siglip_answers_as_huggingface_does(
    tmp_path: Path, following: bool, processor: str, size: tuple[int, int]
) -> None:
    """Page, question and greedy tokens through the whole of both."""
    path = tmp_path / "source"
    model = other_towers.make_checkpoint(path, following=following, processor=processor)
    if processor == "CLIP":
        side = other_towers.SIDE
        sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
        edit(path, "preprocessor_config.json", **sizes)
    images = transformers.AutoImageProcessor.from_pretrained(path, use_fast=False)
    page = cases.page(*size, seed=3)
    seen = images(page, return_tensors="pt")
    spec = Checkpoint(path, network="optimum").spec
    pixels = preprocess(page, spec)
    np.testing.assert_allclose(
        pixels, np.asarray(seen["pixel_values"]).reshape(pixels.shape), rtol=0, atol=1e-6
    )
    prompt = PromptBuilder.of(spec, path / "tokenizer.model").first_turn(QUESTION)
    image = [tiny.VOCAB] * token_count(page.size, spec)
    at = prompt.index(IMAGE)
    ids = torch.tensor([[*prompt[:at], *image, *prompt[at + 1 :]]])
    with torch.inference_mode():
        generated = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **seen, do_sample=False,
            max_new_tokens=NEW_TOKENS, pad_token_id=0,
        )[0, ids.shape[1] :].tolist()  # fmt: skip
    export(path, tmp_path / "bundle", precision="fp32", network="optimum")
    answer = pulse_edge.load(tmp_path / "bundle", threads=1).ask(
        page, QUESTION, max_new_tokens=NEW_TOKENS
    )
    expected = generated[:-1] if generated[-1] in spec.text.eos else generated
    assert list(answer.token_ids) == expected
    assert len(set(expected)) > 4
    assert answer.provenance["tower"]["family"] == "siglip_vision_model"


FAMILIES: dict[str, tuple[dict[str, Any], int]] = {  # config, and tokens before the patches
    "siglip": (other_towers.SIGLIP, 0),
    "siglip without a head": (other_towers.SIGLIP | {"vision_use_head": False}, 0),
    "siglip with gelu": (other_towers.SIGLIP | {"hidden_act": "gelu", "image_size": 56}, 0),
    "dinov2": ({**other_towers.SIZES, "model_type": "dinov2", "image_size": 56}, 1),
    "vit": (other_towers.SIZES | {"model_type": "vit"}, 1),
    "beit": ({**other_towers.SIZES, "model_type": "beit", "image_size": 56}, 1),
    "clip": (other_towers.SIZES | {"model_type": "clip_vision_model"}, 1),
}


@pytest.mark.parametrize(
    ("name", "select"),
    [*((name, -2) for name in FAMILIES), ("siglip", -1), ("vit", -1), ("siglip", 1)],
)
def test_features_are_the_torch_modules(tmp_path: Path, name: str, select: int) -> None:
    vision, dropped = FAMILIES[name]
    side = vision["image_size"]
    changes: dict[str, Any] = {"vision_feature_layer": select}
    model = other_towers.make_checkpoint(tmp_path / "source", vision, **changes)
    sized = {"height": side, "width": side}
    grids = [[side, side]]
    edit(tmp_path / "source", "config.json", image_grid_pinpoints=grids)
    edit(
        tmp_path / "source", "preprocessor_config.json", size=sized, crop_size=sized,
        image_grid_pinpoints=grids,
    )  # fmt: skip
    summary = export(tmp_path / "source", tmp_path / "bundle", precision="fp32", network="optimum")
    assert summary.tower is not None
    assert summary.tower.family == vision["model_type"]
    assert 0 < summary.tower.error < optimum.BOUND
    assert f"{vision['model_type']} by Optimum" in str(summary)
    pixels = noise(2, side)
    expected = huggingface_features(model, pixels, select, dropped)
    assert relative(features(tmp_path / "bundle", pixels), expected) < TOLERANCE


PRECISIONS: list[tuple[dict[str, Any], str, float]] = [
    ({"precision": "int8"}, "MatMulIntegerToFloat", 0.06),
    ({"precision": "int4"}, "MatMulIntegerToFloat", 0.06),
    ({"precision": "w8a8"}, "MatMulIntegerToFloat", 0.06),
    ({"precision": "fp16", "target": "cuda"}, "MatMul", 0.003),
    ({"precision": "int4", "target": "cuda"}, "MatMul", 0.003),
    ({"precision": "int8", "target": "cuda", "tower": "int8"}, "MatMulNBits", 0.04),
    ({"precision": "fp32", "target": "standard"}, "MatMul", 1e-5),
    ({"precision": "fp16", "target": "standard"}, "MatMul", 0.003),
    ({"precision": "int4", "target": "standard"}, "DequantizeLinear", 0.04),
]


@pytest.mark.parametrize(
    ("options", "operator", "bound"),
    PRECISIONS,
    ids=[" ".join(o.values()) for o, _, _ in PRECISIONS],
)
def test_products_are_stored_as_the_precision_says(
    siglip: tuple[Path, Any], tmp_path: Path, options: dict[str, Any], operator: str, bound: float
) -> None:
    """Six of each of the two layers and two of the projector, as our own tower's."""
    import onnx
    import onnxruntime

    path, model = siglip
    export(path, tmp_path / "bundle", network="optimum", **options)
    file = tmp_path / "bundle" / "vision.onnx"
    onnx.checker.check_model(file)
    graph = onnx.load(file, load_external_data=False)
    stored = {t.name for t in graph.graph.initializer}
    products = [n for n in graph.graph.node if n.op_type == operator and n.input[1] in stored]
    assert len(products) == 2 * 6 + 2
    assert {o.domain: o.version for o in graph.opset_import}[""] == (
        24 if options.get("target") == "standard" else 21
    )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    pixels = noise(3)
    (got,) = session.run(["features"], {"pixels": pixels})
    expected = huggingface_features(model, pixels, -2, 0)
    assert relative(got.astype(np.float32), expected) < bound


def test_the_manifest_says_that_optimum_wrote_the_tower(
    siglip: tuple[Path, Any], tmp_path: Path
) -> None:
    export(siglip[0], tmp_path / "bundle", network="optimum")
    bundle = open_bundle(tmp_path / "bundle")
    tower = bundle.manifest.tower
    assert tower is not None
    assert bundle.manifest.tools["optimum-onnx"] == tower.optimum
    assert {"optimum", "transformers", "torch"} <= bundle.manifest.tools.keys()
    assert (
        f"siglip_vision_model by Optimum {tower.optimum}" in dict(describe_bundle(bundle))["vision"]
    )
    report = verify.compare(bundle, siglip[0], None, 2, threads=1)
    assert report.stages[0].max_error == 0


def test_an_export_can_be_repeated(siglip: tuple[Path, Any], tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        export(siglip[0], tmp_path / name, network="optimum")
        files.append(open_bundle(tmp_path / name).manifest.files)
    assert files[0] == files[1]


def test_tensorrts_parser_takes_the_graph(siglip: tuple[Path, Any], tmp_path: Path) -> None:
    """And builds a plan of it without a complaint; running one takes a GPU."""
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx builds plans")
    from pulse_edge.bundle.plans import VISION_PLAN, error_log
    from pulse_export.plan.builder import build_plans

    options: dict[str, Any] = {"precision": "int4", "target": "standard", "network": "optimum"}
    export(siglip[0], tmp_path / "bundle", **options)
    built = build_plans(open_bundle(tmp_path / "bundle"), "l4")
    assert built.files[VISION_PLAN] > 0
    assert list(error_log(trt, fresh=False).complaints) == []


def test_a_bundle_verifies_against_its_checkpoint(siglip: tuple[Path, Any], tmp_path: Path) -> None:
    export(siglip[0], tmp_path / "bundle", precision="fp32", network="optimum")
    assert verify.compare(open_bundle(tmp_path / "bundle"), siglip[0], None, 4, threads=1).passed


def test_a_recipe_reads_the_torch_modules_features(
    siglip: tuple[Path, Any], tmp_path: Path
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    cases.page(150, 110, seed=1).save(pages / "page.png")
    recipe = Recipe(pages, samples=1)
    options: dict[str, Any] = {"network": "optimum", "calibration": recipe}
    export(siglip[0], tmp_path / "gptq", precision="int4", recipe="gptq", **options)
    info = open_bundle(tmp_path / "gptq").manifest.precision.rounding
    assert info is not None
    assert info.name == "gptq"
    export(siglip[0], tmp_path / "w8a8", precision="w8a8", **options)
    export(
        siglip[0], tmp_path / "plans", precision="w8a8", target="standard", tower="int8", **options
    )
    assert open_bundle(tmp_path / "plans").manifest.precision.vision == "int8"
    for name in ("gptq", "w8a8"):
        assert pulse_edge.load(tmp_path / name, threads=1).ask(None, QUESTION, max_new_tokens=2)


def test_nothing_is_fetched_and_nothing_stays_behind(
    siglip: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    (tmp_path / "out").mkdir()
    words = ["export", str(siglip[0]), str(tmp_path / "out" / "bundle"), "--network", "optimum"]
    done = CliRunner().invoke(cli, [*words, "--json"], catch_exceptions=False)
    tower = json.loads(done.stdout)["tower"]
    assert tower["family"] == "siglip_vision_model"
    assert tower["error"] < TOLERANCE
    assert list(scratch.iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bundle"]
    own = export(tiny.make_checkpoint(tmp_path / "clip"), tmp_path / "own")
    assert {p.name for p in (tmp_path / "out" / "bundle").iterdir()} == {
        *own.files,
        "manifest.json",
    }


def test_a_graph_that_errs_is_refused(
    siglip: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimum, "BOUND", 1e-12)
    with pytest.raises(ExportError, match=r"errs by .* over the 1e-12 accepted; install another"):
        export(siglip[0], tmp_path / "bundle", network="optimum")
    assert list(tmp_path.iterdir()) == []


def _without(path: Path, name: str) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(path / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.endswith(name)}
    assert len(kept) < len(tensors)
    tiny.write_safetensors(path / "model.safetensors", kept)


def _changed(path: Path, name: str, shape: tuple[int, ...]) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(path / "model.safetensors")
    (key,) = (k for k in tensors if k.endswith(name)) if name != "extra" else ("extra",)
    if name == "extra":
        key = next(k for k in tensors if "vision" in k).rpartition(".")[0] + ".extra"
    tensors[key] = np.zeros(shape, np.float32)
    tiny.write_safetensors(path / "model.safetensors", tensors)


def _tower(path: Path, **fields: Any) -> None:
    config = json.loads((path / "config.json").read_text())
    edit(path, "config.json", vision_config=config["vision_config"] | fields)


REFUSED: dict[str, tuple[Any, str]] = {
    "a class token that is none": (
        lambda p: edit(p, "config.json", vision_feature_select_strategy="default"),
        r"'default', which keeps 15 tokens .* 16 patches; .*'full' is for towers without one",
    ),
    "missing": (
        lambda p: _without(p, "encoder.layers.0.self_attn.q_proj.weight"),
        r"missing tensors of the vision tower: encoder\.layers\.0\.self_attn\.q_proj\.weight",
    ),
    "misshapen": (
        lambda p: _changed(p, "layers.1.mlp.fc1.bias", (7,)),
        r"misshapen tensors: vision\.\S*fc1\.bias is \[7\], config\.json says \[128\]",
    ),
    "unknown": (
        lambda p: _changed(p, "extra", (3,)), r"unknown tensors of the vision tower: .*extra"
    ),
    "no family": (
        lambda p: _tower(p, model_type="nonsense"),
        r"'nonsense', which Optimum exports no tower of; it exports .*siglip_vision_model",
    ),
    "a language model": (
        lambda p: _tower(p, model_type="gpt2"), r"'gpt2' reads input_ids.*, a vision tower reads"
    ),
    "text beside pixels": (lambda p: _tower(p, model_type="siglip"), r"'siglip' reads input_ids"),
    "a number for a name": (lambda p: _tower(p, model_type=3), "model_type is 3, must be a text"),
    "the repository's code": (
        lambda p: _tower(p, auto_map={"AutoModel": "x.Y"}), "auto_map .*which is not run"
    ),
    "quantized": (lambda p: _tower(p, quantization_config={"bits": 4}), "quantization_config"),
    "no size": (lambda p: _tower(p, image_size=None), "no 'image_size'|transformers refuses"),
    "two sizes": (lambda p: _tower(p, image_size=[60, 60]), "image_size is .60, 60., must be"),
    "huge": (lambda p: _tower(p, patch_size=1 << 19), "patch_size is 524288, outside"),
    "a layer that is none": (
        lambda p: edit(p, "config.json", vision_feature_layer=-9), "feature layer -9 of a tower"
    ),
    "several layers": (
        lambda p: edit(p, "config.json", vision_feature_layer=[-2, -1]), "must be a whole number"
    ),
    "no processor": (
        lambda p: (p / "preprocessor_config.json").unlink(), "no image_processor_type"
    ),
    "a processor with a class token": (
        lambda p: tiny.write_json(
            p / "processor_config.json",
            {"image_processor": other_towers.processor_config("LlavaNext"),
             "num_additional_image_tokens": 1},
        ),
        "num_additional_image_tokens is 1, supported is 0 or None",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(siglip: tuple[Path, Any], tmp_path: Path, name: str) -> None:
    import shutil

    path = Path(shutil.copytree(siglip[0], tmp_path / "source"))
    change, message = REFUSED[name]
    change(path)
    with pytest.raises((CheckpointError, ExportError), match=message) as refused:
        export(path, tmp_path / "bundle", network="optimum")
    assert "\n" not in str(refused.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source"]
