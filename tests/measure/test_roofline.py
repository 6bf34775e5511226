"""`pulse-edge fit`: PULSE-7B's own sizes, the formula by hand, and the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cli import cli
from pulse_edge.engines.chunk import scratch
from pulse_edge.errors import ParameterError
from pulse_edge.measure import cost, devices, forecast, profiles
from pulse_edge.measure import roofline as fit
from pulse_edge.measure.devices import DEVICES, PLAN_DEVICES, Device
from pulse_edge.measure.peaks import Peaks
from pulse_edge.measure.profiles import PROFILES, PULSE_7B

from support.fixture_types import Bundles

BY_NAME = {(p.precision, p.kind): p for p in PROFILES if p.prefill is None}
# A device whose peaks are 1, so that seconds are FLOP and bytes; and a profile that reaches all of
# them.
UNIT = Device("unit", "unit", "gpu", 1e12, 0, read=1.0, gemm={"fp16": 1.0, "int8": 1.0})
WHOLE = dataclasses.replace(
    BY_NAME["fp16", "gpu"],
    gemm_share=1,
    attention_share=1,
    vision_share=1,
    read_share=1,
    cache_share=1,
    step_overhead=0,
)


def test_sizes_of_pulse_7b() -> None:
    """From the shapes of its checkpoint: 6.74 G in the language model, of which 0.13 G are
    embeddings; 0.5 MiB of fp16 cache a token; 3.6 GB that int4 with groups of 128 reads for a
    token; about 2 TFLOP for five views.
    """
    assert cost.layer_weights(PULSE_7B.text) == 4 * 4096 * 4096 + 3 * 4096 * 11008
    weights = profiles.stored_weights(PULSE_7B, BY_NAME["fp16", "gpu"])
    assert weights.decoder + weights.head == 2 * (
        32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 4096 * 32000
    )
    assert cost.cache_row(PULSE_7B.text, "fp16") == 512 * 1024
    int4 = profiles.stored_weights(PULSE_7B, BY_NAME["int4", "cpu"])
    assert int4.decoder + int4.head == pytest.approx(3.58e9, rel=0.01)
    vision = cost.vision_linear(PULSE_7B.vision, 4096, 2, 5) + cost.vision_attention(
        PULSE_7B.vision, 5
    )
    assert vision == pytest.approx(2e12, rel=0.1)


def test_a_step_reads_weights_and_cache() -> None:
    text, weights = PULSE_7B.text, 13e9
    assert fit.step_seconds(text, WHOLE, UNIT, weights, 0) == weights
    assert fit.step_seconds(text, WHOLE, UNIT, weights, 3000) == weights + 3000 * 512 * 1024
    half = dataclasses.replace(WHOLE, read_share=0.5, cache_share=0.25, step_overhead=2.0)
    assert fit.step_seconds(text, half, UNIT, weights, 1) == 2 * weights + 4 * 512 * 1024 + 32 * 2


def test_prefill_takes_its_products_or_its_reads() -> None:
    text = PULSE_7B.text
    products = cost.linear(text, 2880) + cost.attention(text, 0, 2880)
    chunks = 5 * cost.linear(text, 0)  # once a chunk
    assert fit.prefill_seconds(text, WHOLE, UNIT, 1.0, 2880) == pytest.approx(
        products + chunks, rel=1e-12
    )
    assert fit.prefill_seconds(text, WHOLE, UNIT, 1e15, 1024) == 2e15  # twice the weights
    later = fit.prefill_seconds(text, WHOLE, UNIT, 1.0, 100, 2000)
    assert later == cost.linear(text, 100) + 4 * 32 * 4096 * (100 * 2000 + 5050)


def test_what_fits_agrees_with_itself() -> None:
    """On every device; test_roofline_by_hand.py has the numbers."""
    for name, device in DEVICES.items():
        assert device.name == name
        for p in fit.predictions(PULSE_7B, device, PROFILES, None):
            free = device.memory - device.reserved - p.weights - p.activations - p.workspace
            row = p.cache_bytes // 4096
            assert p.fits == (free >= 4096 * row)
            assert p.max_context == min(4096, max(0, int(free // row)))
            assert 0 < p.ttft_warm < p.ttft_cold


def test_one_set_of_names() -> None:
    """`fit`, `build` and `export` know the same devices; names of earlier versions are one of
    them.
    """
    rows = devices.TABLE
    assert [row.name for row in rows] == list(DEVICES)
    assert set(PLAN_DEVICES) == set(DEVICES) | set(devices.ALIASES)
    assert set(devices.ALIASES.values()) <= set(DEVICES)
    assert not set(devices.ALIASES) & set(DEVICES)
    assert all(row.read > 0 and row.fp16 > 0 and row.int8 > row.fp16 for row in rows)
    for row in rows:
        plan = PLAN_DEVICES[row.name]
        assert (plan.capability, plan.memory) == (row.capability, round(row.memory * 10**9))
        assert devices.device_named(row.name) is DEVICES[row.name]
        assert devices.kernel_architecture(row.name) == f"sm{row.capability}"
    for alias, name in devices.ALIASES.items():
        assert devices.device_named(alias) is DEVICES[name]
        smaller = [r for r in rows if r.name.startswith(f"{alias}-")]
        assert PLAN_DEVICES[alias].memory <= min((10**9 * r.memory for r in smaller), default=1e12)
    assert devices.kernel_architecture("sm90") == "sm90"
    assert devices.kernel_architecture("gameboy") == "gameboy"


def test_a_prompt_goes_at_once_where_memory_allows() -> None:
    """A device with twice the scratch of a whole prompt beside the rest, with less, with little."""
    text, profile = PULSE_7B.text, BY_NAME["int4", "gpu"]
    weights = profiles.stored_weights(PULSE_7B, profile).total
    table = (32000 + 5 * 576) * 4096 * 2  # embeddings and a page's features
    assert (
        profiles.stored_weights(PULSE_7B, profile).table
        == table
        == pytest.approx(0.286e9, rel=0.01)
    )
    rest = weights + 4096 * cost.cache_row(text, "fp16") + fit.WORKSPACE["gpu"]
    passes = {}
    whole = 2 * scratch(text, 4096)
    for rows, free in ((4096, whole), (2048, whole - 1e3), (512, 3e8)):
        device = dataclasses.replace(DEVICES["l4"], memory=rest + free + 1, reserved=0)
        p = fit.predict(PULSE_7B, device, profile)
        assert p.prefill_rows == rows
        assert p.activations == scratch(text, rows)
        assert p.fits
        assert p.max_context == 4096
        passes[rows] = p.prefill
    assert passes[4096] < passes[2048] < passes[512]  # fewer passes read the weights less often
    assert fit.predict(PULSE_7B, DEVICES["h100"], profile, 100).prefill_rows == 100
    host = dataclasses.replace(UNIT, kind="cpu", gemm={"int8": 1.0, "fp32": 1.0})
    assert fit.predict(PULSE_7B, host, BY_NAME["int4", "cpu"]).prefill_rows == 512


def test_the_tower_on_gpus_is_fp16() -> None:
    """As `--target cuda` stores it: 0.62 GB, of which 8 bits in blocks would save 49 %."""
    elements = cost.vision_weights(PULSE_7B.vision, 4096, 2)
    for precision in ("fp16", "int8", "int4"):
        profile = BY_NAME[precision, "gpu"]
        assert profile.tower == "fp16"
        assert (
            profiles.stored_weights(PULSE_7B, profile).vision
            == 2 * elements
            == pytest.approx(0.62e9, rel=0.01)
        )
        p = fit.predict(PULSE_7B, DEVICES["h100"], profile)
        assert p.tower_saving == round(elements * (2 - 1 - 2 / 128))
        assert not p.needs_int8_tower
    w8a8 = fit.predict(PULSE_7B, DEVICES["h100"], BY_NAME["w8a8", "gpu"])
    assert (w8a8.tower, w8a8.tower_saving, w8a8.engine) == ("w8a8", 0, "tensorrt")


def test_a_jetson_runs_tensorrt() -> None:
    """Its tower has 8 bits, its embeddings stay in the file, its rows are the plan's."""
    elements = cost.vision_weights(PULSE_7B.vision, 4096, 2)
    towers = (("fp16", "fp16", 2), ("int8", "int8", 1), ("int4", "int8", 1))
    for name, rows in (("orin-nano-8gb", 512), ("orin-nx-16gb", 2048), ("agx-orin-64gb", 2048)):
        for precision, tower, width in towers:
            profile = profiles.profile_on(BY_NAME[precision, "gpu"], DEVICES[name])
            weights = profiles.stored_weights(PULSE_7B, profile)
            assert (weights.vision, weights.table) == (width * elements, 0)
            p = fit.predict(PULSE_7B, DEVICES[name], BY_NAME[precision, "gpu"])
            assert (p.engine, p.tower, p.prefill_rows) == ("tensorrt", tower, rows)
            assert p.weights == round(weights.total)
            assert p.activations == scratch(PULSE_7B.text, rows)
    assert fit.predict(PULSE_7B, DEVICES["orin-nano-8gb"], BY_NAME["int4", "gpu"], 3200).fits
    assert fit.predict(PULSE_7B, DEVICES["t4"], BY_NAME["int4", "gpu"]).engine == "onnxruntime"


def test_gpus_that_need_an_int8_tower() -> None:
    """Where the saving is what is missing, to the byte; not where that is nothing, or more."""
    profile = BY_NAME["int4", "gpu"]
    weights = profiles.stored_weights(PULSE_7B, profile).total
    saving = profiles.stored_weights(PULSE_7B, profile).vision * (1 - profiles.INT8_TOWER / 2)
    cache = 3200 * cost.cache_row(PULSE_7B.text, "fp16")
    rest = weights + cache + fit.WORKSPACE["gpu"] + scratch(PULSE_7B.text, 512)
    for memory, fits, needs in (
        (rest + 2, True, False),
        (rest - 2, False, True),
        (rest - saving + 2, False, True),
        (rest - saving - 2, False, False),
    ):
        device = dataclasses.replace(DEVICES["rtx-4060"], memory=memory, reserved=0)
        p = fit.predict(PULSE_7B, device, profile, 3200)
        assert (p.fits, p.needs_int8_tower) == (fits, needs)
        shown = forecast.prediction_text(PULSE_7B, device, [p], 3200)
        assert ("int4: fits with --tower int8, which takes 306 MB less" in shown) == needs
        assert ("; all with --tower int8" in shown) == needs


def test_a_shorter_context_takes_less_and_longer_prompts_are_cut() -> None:
    whole, half = (
        fit.predict(PULSE_7B, DEVICES["l4"], BY_NAME["int4", "gpu"], c) for c in (4096, 2048)
    )
    assert half.cache_bytes * 2 == whole.cache_bytes
    assert half.prefill < whole.prefill  # 2,048 of 2,933 tokens


def test_a_precision_that_nothing_is_known_of(bundle: Path) -> None:
    opened = open_bundle(bundle)
    geometry = profiles.geometry_of_bundle(opened)
    assert geometry.text == opened.manifest.model.text
    with pytest.raises(ParameterError, match="nothing is known of fp32 bundles for cpu"):
        profiles.profile_of_bundle(opened, geometry)


def test_a_bundle_weighs_what_its_files_do(bundles: Bundles) -> None:
    opened = open_bundle(bundles("int8"))
    geometry = profiles.geometry_of_bundle(opened)
    profile = profiles.profile_of_bundle(opened, geometry)
    files = {f.path: f.size for f in opened.manifest.files}
    graphs = sum(
        size for path, size in files.items() if path.startswith(("decoder.onnx", "vision.onnx"))
    )
    weights = profiles.stored_weights(geometry, profile)
    assert weights.total - weights.table == pytest.approx(graphs)
    assert weights.table == files["embeddings.bin"]
    assert profile.cache == opened.manifest.precision.kv_cache
    assert profile.tower == opened.manifest.precision.vision


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(cli, ["fit", "--device", "orin-nano-8gb"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("PREDICTED")
    assert "assumed; worth on an H100" in shown.output
    assert "prefill = linear FLOP / (GEMM peak x share)" in shown.output
    made = json.loads(
        CliRunner()
        .invoke(cli, ["fit", "--device", "orin-nano-8gb", "--context", "2048", "--json"])
        .output
    )
    assert made["what"].startswith("PREDICTED")
    assert made["context"] == 2048
    (int4,) = (p for p in made["predictions"] if p["precision"] == "int4")
    assert int4["fits"]
    assert (
        int4["total"]
        == int4["weights"] + int4["cache_bytes"] + int4["activations"] + int4["workspace"]
    )
    listed = CliRunner().invoke(cli, ["fit", "--list"]).output
    assert all(name in listed for name in DEVICES)
    peaks = Peaks(2, 20e9, 1, {"fp32": 2e11, "int8": 4e11}, 1, {})
    monkeypatch.setattr(devices, "measure_peaks", lambda *_: peaks)
    here = CliRunner().invoke(cli, ["fit"]).output
    assert "20 GB/s; fp32 0.2 TFLOP/s, int8 0.4 TFLOP/s" in here
    assert "measured on another CPU" in here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "gameboy"], "device 'gameboy' is not one of this, orin-nano-4gb, "),
        (
            ["--device", "l4", "--context", "5000"],
            "context is 5000, but must be from 1 to the model's 4096",
        ),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    refused = CliRunner().invoke(cli, ["fit", *arguments])
    assert isinstance(refused.exception, ParameterError)
    assert message in str(refused.exception)
