"""What `fit` recommends: one line for each device, that fits and that the exporter takes."""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any

import pytest
from click.testing import CliRunner

from pulse_edge.cli import cli
from pulse_edge.measure import forecast
from pulse_edge.measure.advice import Advice, advise, smallest
from pulse_edge.measure.devices import DEVICES, Device
from pulse_edge.measure.profiles import PROFILES, PULSE_7B, with_int8_caches
from pulse_edge.measure.roofline import predict, predictions

from support.paths import DOCS

ALL = with_int8_caches(PROFILES)
HOST = Device("host", "a host", "cpu", 32e9, 1e9, read=20e9, gemm={"int8": 4e11, "fp32": 2e11})
BY_NAME = {(p.precision, p.kind): p for p in PROFILES if p.prefill is None}


def advice_for(device: Device, context: int | None = None) -> Advice:
    advice = advise(PULSE_7B, device, ALL, context)
    assert advice is not None
    return advice


@pytest.mark.parametrize("name", DEVICES)
def test_the_line_of_each_device_is_one_the_exporter_takes(name: str) -> None:
    """Options of the real command, with the context and the target in it."""
    pytest.importorskip("onnx")
    advice = advise(PULSE_7B, DEVICES[name], ALL)
    if name == "orin-nano-4gb":
        assert advice is None
        return
    assert advice is not None
    words = shlex.split(advice.export)
    assert words[:4] == ["pulse-edge", "export", "PULSE-7B", f"pulse-{advice.prediction.precision}"]
    command = cli.commands["export"]
    context = command.make_context("export", words[2:])
    assert context.params["context"] == advice.context >= PULSE_7B.tokens + 256
    assert context.params["precision"] == advice.prediction.precision
    expected = "standard" if DEVICES[name].engine == "tensorrt" else "cuda"
    assert context.params["target"] == expected
    assert (advice.build is not None) == (expected == "standard")


@pytest.mark.parametrize("name", [name for name in DEVICES if name != "orin-nano-4gb"])
def test_what_is_recommended_fits_and_is_the_fastest(name: str) -> None:
    device = DEVICES[name]
    advice = advice_for(device)
    best = advice.prediction
    assert best.fits or advice.int8_tower
    for p in predictions(PULSE_7B, device, ALL, advice.context):
        if p.fits and p.engine == device.engine:
            total = best.ttft_cold + 128 * best.step
            assert total <= p.ttft_cold + 128 * p.step


def test_lines() -> None:
    assert advice_for(DEVICES["orin-nano-8gb"]).export == (
        "pulse-edge export PULSE-7B pulse-int4 --precision int4 --block-size 128 --context 3200 "
        "--target standard"
    )
    assert advice_for(DEVICES["h100"]).export == (
        "pulse-edge export PULSE-7B pulse-int4 --precision int4 --block-size 128 --context 4096 "
        "--target cuda"
    )
    assert advice_for(HOST).export.endswith("--target cpu --cache int8")
    assert "--context 3500" in advice_for(DEVICES["h100"], 3500).export


def test_a_card_that_needs_an_int8_tower() -> None:
    card = DEVICES["rtx-4060"]
    needs = predict(PULSE_7B, card, BY_NAME["int4", "gpu"], 4096).total + card.reserved
    tight = advice_for(dataclasses.replace(card, memory=needs - 1e6))
    assert tight.int8_tower
    assert tight.export.endswith("--context 4096 --target cuda --tower int8")
    assert advice_for(dataclasses.replace(card, memory=needs + 1e6)).int8_tower is False
    least = predict(PULSE_7B, dataclasses.replace(card, memory=6e9), BY_NAME["int4", "gpu"], 3200)
    small = advice_for(dataclasses.replace(card, memory=least.total + card.reserved - 1e6))
    assert (small.context, small.int8_tower) == (3200, True)


def test_nothing_fits() -> None:
    tiny = dataclasses.replace(DEVICES["rtx-4060"], memory=3e9)
    assert advise(PULSE_7B, tiny, ALL) is None
    assert advise(PULSE_7B, DEVICES["h100"], ALL, 1000) is None  # a page has 2,933 tokens
    lines = forecast.advice_lines(tiny, None, smallest(PULSE_7B, tiny, ALL))
    assert "Nothing is recommended: a page in int4 takes" in lines[1]
    assert "2.5 GB are free" in lines[1]


def test_int8_caches_are_rows_of_cpus() -> None:
    rows = [(p.name, p.cache) for p in predictions(PULSE_7B, HOST, ALL, None)]
    expected = [(p, c) for p in ("int4", "int4 + w8a8", "int8", "w8a8") for c in ("fp32", "int8")]
    assert rows == expected
    float_cache, int8_cache = predictions(PULSE_7B, HOST, ALL, None)[:2]
    assert int8_cache.cache_bytes * 4 == float_cache.cache_bytes
    assert int8_cache.step < float_cache.step
    on_gpu = {p.cache for p in predictions(PULSE_7B, DEVICES["l4"], ALL, None)}
    assert on_gpu == {"fp16"}


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        # docs/jetson.md: 0.3 GB, activations, and 3.5, 3, 4, 4 times the decoder's weights
        ("orin-nx-16gb", "int4", 12.9e9),
        ("orin-nx-16gb", "int8", 20.6e9),
        ("orin-nx-16gb", "w8a8", 27.2e9),
        ("orin-nx-16gb", "fp16", 53.6e9),
        ("orin-nano-8gb", "int4", 12.6e9),
        ("h100", "int4", None),
        ("h100", "fp16", None),
        ("h100", "w8a8", 20.1e9),  # in the host's memory: 0.3 GB and three times the weights
    ],
)
def test_the_build_s_peak(name: str, precision: str, peak: float | None) -> None:
    p = predict(PULSE_7B, DEVICES[name], BY_NAME[precision, "gpu"])
    assert p.build_peak == (None if peak is None else pytest.approx(peak, rel=0.02))


def test_the_build_s_peak_is_the_exporter_s() -> None:
    pytest.importorskip("onnx")
    from pulse_edge.measure.roofline import PLAN_FIXED
    from pulse_export.plan.builder import PEAK_FIXED
    from pulse_export.quantize.precision import STORAGES

    assert PLAN_FIXED == PEAK_FIXED
    for profile in PROFILES:
        if profile.kind == "gpu":
            assert profile.plan_memory == STORAGES[profile.precision].plan_memory


def fit(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["fit", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", DEVICES)
def test_no_latency_of_what_does_not_fit(name: str) -> None:
    record: dict[str, Any] = json.loads(fit("--device", name, "--json"))
    latencies = ("vision", "prefill", "ttft_cold", "ttft_warm", "step")
    for p in record["predictions"]:
        for latency in latencies:
            assert (p[latency] is None) == (not p["fits"])
    for line in fit("--device", name).splitlines():
        if line.startswith(("fp16,", "int8,", "int4,", "w8a8,")):
            assert line.endswith("/s") == ("  all  " in line)


def test_the_command_recommends() -> None:
    out = fit("--device", "orin-nano-8gb")
    assert "Recommended:\n  pulse-edge export PULSE-7B pulse-int4 --precision int4" in out
    assert "pulse-edge build pulse-int4" in out
    assert "the build takes 12.6 GB at its peak: add 6.14 GB of swap" in out
    assert out.count("pulse-edge export") == 1
    recommended = json.loads(fit("--device", "orin-nano-8gb", "--json"))["recommended"]
    assert recommended["export"] in out
    assert recommended["context"] == 3200
    assert json.loads(fit("--device", "orin-nano-4gb", "--json"))["recommended"] is None
    listed = fit("--list")
    for device in DEVICES.values():
        advice = advise(PULSE_7B, device, ALL)
        assert (advice.export if advice else "nothing fits") in listed
    assert fit("--device", "orin-nano") == fit("--device", "orin-nano-4gb")


def test_the_page_of_devices_is_current() -> None:
    """docs/devices.md has each device's name, title, memory and recommended line."""
    page = (DOCS / "devices.md").read_text("utf-8")
    for device in DEVICES.values():
        advice = advise(PULSE_7B, device, ALL)
        line = f"`{advice.export}`" if advice else "nothing fits"
        assert f"| `{device.name}` | {device.title} | {line} |" in page
    assert page.count("\n| `") == len(DEVICES)
