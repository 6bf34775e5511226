"""Recipes end to end: codes and scales in a bundle are the recipe's, on every target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("onnx", "1.19", reason="opset 24 is checked by onnx 1.19 and newer")

import onnx
from onnx import numpy_helper

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.bundle.description import describe_bundle
from pulse_edge.bundle.manifest import DECODER_GRAPH, MANIFEST, RECIPES, loads
from pulse_edge.cli import cli
from pulse_edge.errors import BundleError, ExportError
from pulse_export import reference
from pulse_export.checkpoint import Checkpoint
from pulse_export.options import ExportOptions
from pulse_export.pipeline import export
from pulse_export.quantize.calibrate import encode_samples
from pulse_export.quantize.decoder_codes import DecoderCodes
from pulse_export.quantize.lockstep import through_layer
from pulse_export.quantize.mix import Sensitivity, eight_bit_names
from pulse_export.quantize.recipe import Recipe
from pulse_export.quantize.rounding import ROWS, Rounding
from pulse_export.quantize.search import BlockFormat
from pulse_export.quantize.weights import QuantWeight
from pulse_export.targets.onnxruntime import pack
from pulse_export.targets.tensorrt import signed_codes

from support.fixture_types import Checkpoints
from support.manifests import edit_manifest

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small pages of noise; simulated ones take a second each."""
    folder = tmp_path_factory.mktemp("pages")
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 256, (100, 130, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
    return folder


def initializers(path: Path) -> dict[str, NDArray[Any]]:
    graph = onnx.load(path / DECODER_GRAPH)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def layer_name(i: int, part: str) -> tuple[str, tuple[str, ...]]:
    """A graph's name of a matrix, and the linear layers in it."""
    if part == "qkv":
        return f"layers.{i}.qkv", tuple(f"layers.{i}.self_attn.{p}_proj" for p in "qkv")
    room = "self_attn" if part == "o" else "mlp"
    name = f"layers.{i}.{room}.{part}_proj"
    return name, (name,)


def recipes_codes(checkpoint: Path, pages: Path, recipe: str, layout: BlockFormat) -> DecoderCodes:
    """As the export makes them."""
    source = Checkpoint(checkpoint)
    rounding = Rounding(recipe)
    states: tuple[Any, ...] = ()
    if rounding.takes_data:
        data = Recipe(pages, samples=1)
        states = encode_samples(source.path, source.spec, source.tensor, data).states
    return DecoderCodes(source.tensor, source.spec, rounding, lambda *_: layout, states)


@pytest.mark.parametrize(
    ("target", "recipe"),
    [("cpu", "rtn"), ("cpu", "gptq"), ("cpu", "awq"), ("cuda", "rtn"), ("cuda", "auto"),
     ("standard", "rtn"), ("standard", "gptq")],
)  # fmt: skip
def test_codes_and_scales_are_the_recipes_to_the_bit(
    target: str, recipe: str, checkpoint: Path, pages: Path, tmp_path: Path
) -> None:
    data = Recipe(pages, samples=1) if ROWS[recipe].takes_data else None
    export(
        checkpoint, tmp_path / "b", precision="int4", target=target, recipe=recipe, calibration=data
    )
    stored = initializers(tmp_path / "b")
    kind: type[np.generic] = np.float32 if target == "cpu" else np.float16
    layout = BlockFormat(4, 32, target != "standard", kind)
    codes = recipes_codes(checkpoint, pages, recipe, layout)
    for i in range(Checkpoint(checkpoint).spec.text.layers):
        for part in ("qkv", "o", "gate", "up", "down"):
            name, layers = layer_name(i, part)
            check_stored(stored, name, codes.codes(layers), target)


def check_stored(
    stored: dict[str, NDArray[Any]], name: str, codes: QuantWeight, target: str
) -> None:
    """That a graph holds these codes and scales, and no others."""
    scales = stored[f"{name}.scales"]
    found = stored[f"{name}.codes"]
    if target == "standard":
        np.testing.assert_array_equal(scales.astype(np.float32), codes.scales.T)
        np.testing.assert_array_equal(found.astype(np.int8), signed_codes(codes).astype(np.int8))
    else:
        np.testing.assert_array_equal(scales.astype(np.float32), codes.scales)
        np.testing.assert_array_equal(found, pack(codes))


def test_without_a_recipe_a_bundle_is_what_it_was(checkpoint: Path, tmp_path: Path) -> None:
    from pulse_export.quantize.weights import quantize

    export(checkpoint, tmp_path / "b", precision="int4")
    manifest = open_bundle(tmp_path / "b").manifest
    assert manifest.precision.rounding is None
    assert "rounding" not in json.loads((tmp_path / "b" / MANIFEST).read_bytes())["precision"]
    stored = initializers(tmp_path / "b")
    weight = Checkpoint(checkpoint).tensor("layers.0.mlp.down_proj.weight")
    check_stored(stored, "layers.0.mlp.down_proj", quantize(weight, 4, 32), "cpu")


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}])
def test_lockstep_is_the_references_layer(
    options: dict[str, Any], checkpoints: Checkpoints
) -> None:
    source = Checkpoint(checkpoints(**options))
    rng = np.random.default_rng(0)
    states = [rng.normal(0, 1, (n, source.spec.text.hidden)).astype(np.float32) for n in (5, 9)]
    seen: list[tuple[str, ...]] = []
    got = through_layer(states, 0, source.spec, source.tensor, lambda names, _: seen.append(names))
    for x, y in zip(states, got, strict=True):
        np.testing.assert_array_equal(
            y, reference.decoder_layer(x, 0, source.spec, source.tensor, None)
        )
    assert [len(names) for names in seen] == [3, 1, 2, 1]


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}])
@pytest.mark.parametrize("recipe", ["awq", "auto"])
def test_what_is_folded_computes_the_same(
    recipe: str, options: dict[str, Any], checkpoints: Checkpoints
) -> None:
    source = Checkpoint(checkpoints(**options))
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (40, source.spec.text.hidden)).astype(np.float32)
    x[:, 3] *= 30
    layout = BlockFormat(4, 32)
    codes = DecoderCodes(source.tensor, source.spec, Rounding(recipe), lambda *_: layout, [x])
    folded = codes("layers.0.input_layernorm.weight")
    assert (folded != source.tensor("layers.0.input_layernorm.weight")).any()
    expected = reference.decoder_layer(x, 0, source.spec, source.tensor)
    got = reference.decoder_layer(x, 0, source.spec, codes)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_recipes_with_data_err_less_on_it(checkpoint: Path, pages: Path) -> None:
    source, layout = Checkpoint(checkpoint), BlockFormat(4, 32)
    data = encode_samples(source.path, source.spec, source.tensor, Recipe(pages, samples=1))
    means = {}
    for recipe in ROWS:
        codes = DecoderCodes(
            source.tensor, source.spec, Rounding(recipe), lambda *_: layout, data.states
        )
        codes.codes((f"layers.{source.spec.text.layers - 1}.mlp.down_proj",))
        errors = [row.error for row in codes.errors if row.error is not None]
        assert len(errors) == 7 * source.spec.text.layers
        means[recipe] = float(np.mean(errors))
    assert means["gptq"] < 0.8 * means["rtn"]
    assert means["auto"] < 0.8 * means["rtn"]
    assert means["awq"] <= 1.02 * means["rtn"]


def test_the_manifest_names_recipe_and_data(checkpoint: Path, pages: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"precision": "int4", "recipe": "gptq", "damping": 0.05}
    data = Recipe(pages, samples=2)
    export(checkpoint, tmp_path / "a", calibration=data, act_order=True, **options)
    bundle = open_bundle(tmp_path / "a")
    info = bundle.manifest.precision.rounding
    source = Checkpoint(checkpoint)
    encoded = encode_samples(source.path, source.spec, source.tensor, data)
    assert info is not None
    assert (info.name, info.damping, info.act_order, info.samples) == ("gptq", 0.05, True, 2)
    assert info.tokens == sum(map(len, encoded.states))
    assert info.data_sha256 == encoded.sha256
    assert "int4 by GPTQ" in bundle.manifest.precision.recipe
    shown = dict(describe_bundle(bundle))["4-bit recipe"]
    assert "gptq" in shown
    assert encoded.sha256 in shown
    export(checkpoint, tmp_path / "b", calibration=data, act_order=True, **options)
    assert open_bundle(tmp_path / "b").digest == bundle.digest
    other = Recipe(pages, samples=3)
    export(checkpoint, tmp_path / "c", calibration=other, act_order=True, **options)
    assert open_bundle(tmp_path / "c").manifest.precision.rounding != info


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "int3", "rounding.name is 'int3'; legal are rtn, gptq, awq, auto"),
        ("damping", 0.0, "rounding.damping is 0.0, outside"),
        ("damping", 1.5, "rounding.damping is 1.5, outside"),
        ("samples", 0, "rounding.samples is 0, outside 1 to 4,096"),
        ("samples", 4097, "rounding.samples is 4097"),
        ("tokens", 0, "rounding.tokens is 0"),
        ("tokens", 1 << 41, "rounding.tokens is"),
        ("data_sha256", "abc", "rounding.data_sha256 is no SHA-256"),
        ("eight_bits", ["x"] * 2000, "rounding.eight_bits lists 2,000 layers"),
        ("name", 3, "expected str"),
        ("act_order", 1, "expected bool"),
        ("damping", "0.01", "expected float"),
        ("colour", "blue", "unknown field 'colour'"),
    ],
)
def test_impossible_records_are_refused(
    field: str, value: Any, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    export(checkpoint, tmp_path / "b", precision="int4", recipe="rtn")
    edit_manifest(
        tmp_path / "b", lambda data: data["precision"]["rounding"].__setitem__(field, value)
    )
    with pytest.raises(BundleError, match=message):
        loads((tmp_path / "b" / MANIFEST).read_bytes())


def test_a_budget_gives_8_bits_to_what_fits(checkpoint: Path, pages: Path, tmp_path: Path) -> None:
    source, data = Checkpoint(checkpoint), Recipe(pages, samples=2)
    matrices = [n for n in source.names if n.startswith("layers.") and n.endswith("_proj.weight")]
    least = sum(map(source.elements, matrices)) * 5 / 8 / (1 << 20)  # a scale of 4 bytes for 32
    for budget, some in ((1.001 * least, 0), (1.4 * least, 5), (2 * least, len(matrices))):
        out = tmp_path / f"{some}"
        export(
            checkpoint, out, precision="int4", recipe="gptq", calibration=data, budget_mib=budget
        )
        info = open_bundle(out).manifest.precision.rounding
        assert info is not None
        assert info.eight_bits is not None
        assert (len(info.eight_bits) >= 1) == bool(some)
        assert len(info.eight_bits) <= len(matrices)
        assert some != len(matrices) or len(info.eight_bits) == some
        assert stored_bits(out) == {
            name: 8 if name in info.eight_bits else 4
            for name in (matrix.removesuffix(".weight") for matrix in matrices)
        }
        arrays = initializers(out)
        total = sum(array.nbytes for name, array in arrays.items() if is_stored_matrix(name))
        assert total <= budget * (1 << 20)


@pytest.mark.parametrize("budget", [1e-6, 0.001])
def test_a_budget_below_4_bits_is_refused(
    budget: float, checkpoint: Path, pages: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="too small: the decoder's matrices take"):
        export(
            checkpoint, tmp_path / "b", precision="int4", recipe="rtn", budget_mib=budget,
            calibration=Recipe(pages, samples=1),
        )  # fmt: skip


def is_stored_matrix(name: str) -> bool:
    """Whether a graph's tensor holds codes or scales of one of the decoder's matrices."""
    return name.startswith("layers.") and name.endswith((".codes", ".scales"))


def stored_bits(path: Path) -> dict[str, int]:
    """Bits of every linear layer's codes in a bundle's decoder."""
    bits: dict[str, int] = {}
    for node in onnx.load(path / DECODER_GRAPH, load_external_data=False).graph.node:
        if node.op_type != "MatMulNBits" or node.name == "lm_head":
            continue
        width = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        layer, _, part = node.name.rpartition(".")
        stacked = [f"{layer}.self_attn.{p}_proj" for p in "qkv"] if part == "qkv" else [node.name]
        bits.update(dict.fromkeys(stacked, int(width)))
    return bits


def test_a_mix_takes_what_gains_most_for_a_byte() -> None:
    table = [
        Sensitivity(("a",), (0.5, 0.0), (100, 200)),
        Sensitivity(("b", "c"), (0.2, 0.0), (10, 20)),
        Sensitivity(("d",), (0.001, 0.0), (50, 100)),
    ]
    assert eight_bit_names(table, 160) == frozenset()
    assert eight_bit_names(table, 170) == {"b", "c"}
    assert eight_bit_names(table, 220) == {"b", "c", "d"}
    assert eight_bit_names(table, 270) == {"a", "b", "c"}
    assert eight_bit_names(table, 320) == {"a", "b", "c", "d"}
    with pytest.raises(ExportError, match="too small: the decoder's matrices take 160 B"):
        eight_bit_names(table, 159)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "k-quants"}, "recipe 'k-quants' is not one of rtn, gptq, awq, auto"),
        ({"recipe": "gptq", "precision": "int8"}, "recipe gptq needs precision int4, not int8"),
        ({"recipe": "rtn", "precision": "fp32"}, "recipe rtn needs precision int4, not fp32"),
        ({"recipe": "awq", "precision": "w8a8"}, "recipe awq needs precision int4, not w8a8"),
        ({"damping": 0.01}, "damping needs a recipe"),
        ({"act_order": True}, "act-order needs a recipe"),
        ({"budget_mib": 1.0}, "budget-mib needs a recipe"),
        ({"recipe": "rtn", "damping": 0.01}, "recipe rtn has no damping; gptq and auto have it"),
        ({"recipe": "awq", "act_order": True}, "recipe awq has no act-order"),
        ({"recipe": "gptq", "damping": 0.0}, "damping 0.0 must be 1e-06 to 1"),
        ({"recipe": "gptq", "damping": 2.0}, "damping 2.0 must be 1e-06 to 1"),
        ({"recipe": "gptq", "damping": float("nan")}, "damping nan must be"),
        ({"recipe": "gptq", "budget_mib": 0.0}, "budget-mib 0 must be over 0"),
        ({"recipe": "gptq", "budget_mib": float("inf")}, "budget-mib inf must be over 0"),
        ({"recipe": "rtn", "calibration": Recipe()}, "recipe rtn takes no calibration data"),
        ({"recipe": "gptq", "calibration": Recipe(alpha=0.5)}, "alpha goes with precision w8a8"),
    ],
)
def test_options_that_do_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        ExportOptions(**({"precision": "int4"} | values))


def test_too_little_calibration_data(
    checkpoint: Path, pages: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pulse_export.quantize import prepare

    monkeypatch.setattr(prepare, "INPUTS_A_TOKEN", 1e-3)
    with pytest.raises(ExportError, match=r"has \d+ tokens, and a model of width .* give more"):
        export(
            checkpoint, tmp_path / "b", precision="int4", recipe="gptq",
            calibration=Recipe(pages, samples=1),
        )  # fmt: skip
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no page"), "page.png"),
        (lambda path: path.unlink(), "holds no page"),
        (lambda path: path.write_bytes(b""), "page.png"),
    ],
)
def test_damaged_calibration_data(
    damage: Any, message: str, checkpoint: Path, pages: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    page = folder / "page.png"
    page.write_bytes((pages / "0.png").read_bytes())
    damage(page)
    command = ["export", str(checkpoint), str(tmp_path / "b"), "--precision", "int4"]
    done = CliRunner().invoke(cli, [*command, "--recipe", "gptq", "--calibration", str(folder)])
    assert done.exit_code != 0
    assert message in str(done.exception)
    assert not (tmp_path / "b").exists()


def test_inputs_that_are_not_finite_are_named(checkpoint: Path) -> None:
    source, layout = Checkpoint(checkpoint), BlockFormat(4, 32)
    state = np.full((20, source.spec.text.hidden), np.nan, np.float32)
    codes = DecoderCodes(source.tensor, source.spec, Rounding("gptq"), lambda *_: layout, [state])
    with pytest.raises(ExportError, match=r"inputs of layers\.0\.self_attn\.q_proj are not finite"):
        codes.codes(("layers.0.mlp.down_proj",))


def test_the_command_takes_conversations(checkpoint: Path, pages: Path, tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhat is the rate?"},
        {"from": "gpt", "value": "72 beats per minute."},
    ]
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"id": "0", "image": "0.png", "conversations": turns}]))
    command = ["export", str(checkpoint), str(tmp_path / "b"), "--precision", "int4"]
    command += ["--recipe", "auto", "--calibration", str(pages), "--prompts", str(prompts)]
    command += ["--samples", "1", "--damping", "0.02", "--act-order", "--head", "int4"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0
    info = open_bundle(tmp_path / "b").manifest.precision.rounding
    assert info is not None
    assert (info.name, info.damping, info.act_order, info.samples) == ("auto", 0.02, True, 1)
    shown = CliRunner().invoke(cli, ["info", str(tmp_path / "b")], catch_exceptions=False).stdout
    assert "scaled, then gptq" in shown


def test_smoothing_is_no_option_of_a_recipe(checkpoint: Path, tmp_path: Path) -> None:
    command = ["export", str(checkpoint), str(tmp_path / "b"), "--precision", "int4"]
    done = CliRunner().invoke(cli, [*command, "--recipe", "gptq", "--smoothing", "0.5"])
    assert done.exit_code == 2
    assert "--smoothing goes with --precision w8a8" in done.stderr


def test_progress_adds_up_to_what_was_announced(
    checkpoint: Path, pages: Path, tmp_path: Path
) -> None:
    for recipe in ("rtn", "gptq"):
        totals: list[int] = []
        steps: list[int] = []

        def start(total: int, totals: list[int] = totals, steps: list[int] = steps) -> Any:
            totals.append(total)
            return steps.append

        data = Recipe(pages, samples=1) if recipe != "rtn" else None
        export(
            checkpoint, tmp_path / recipe, progress=start, precision="int4", recipe=recipe,
            calibration=data,
        )  # fmt: skip
        assert sum(steps) == pytest.approx(totals[0], rel=0.05)


def test_the_manifests_names_are_the_tables() -> None:
    assert tuple(ROWS) == RECIPES
