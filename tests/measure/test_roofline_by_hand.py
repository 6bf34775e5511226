"""What fits, and the latencies, of PULSE-7B on a few devices, with the arithmetic written out."""

from __future__ import annotations

import dataclasses

import pytest

from pulse_edge.measure.devices import DEVICES, Device
from pulse_edge.measure.profiles import PROFILES, PULSE_7B
from pulse_edge.measure.roofline import Prediction, predict, predictions

BY_NAME = {(p.precision, p.kind): p for p in PROFILES if p.prefill is None}

TOWER = 310_378_496  # elements; see test_cost.py
TABLE = 262_144_000  # bytes: 32000 x 4096 embeddings of 2
ROW = 524_288  # bytes of a position in an fp16 cache
# fp16 activations of a pass: rows x (4 x 11008 + 10 x 4096) x 2 bytes, and q, k, v in fp16.
PASS_512 = 187_695_104  # 512 x 169,984 + 12288 x 4096 x 2
PASS_4096 = 796_917_760  # 4096 x 169,984 + 100,663,296

# A CPU whose peaks are round numbers.
HOST = Device("host", "a host", "cpu", 8e9, 1e9, read=20e9, gemm={"int8": 4e11, "fp32": 2e11})


def test_int4_on_a_jetson_of_8_gb() -> None:
    """TensorRT: an int8 tower, embeddings in their file, passes of 512 rows."""
    p = predict(PULSE_7B, DEVICES["orin-nano-8gb"], BY_NAME["int4", "gpu"])
    # 6,476,005,376 x (0.5 + 2/128) + 131,072,000 x (1 + 2/128) + 310,378,496 x 1
    assert p.weights == 3_339_190_272 + 133_120_000 + TOWER == 3_782_688_768
    assert p.cache_bytes == 4096 * ROW == 2_147_483_648
    assert (p.prefill_rows, p.activations) == (512, PASS_512)
    assert p.workspace == 600_000_000
    assert p.total == 6_717_867_520
    # 8.0 GB - 1.5 GB - 3,782,688,768 - 0.6 GB - 187,695,104 = 1,929,616,128 = 3,680.4 positions
    assert (p.fits, p.max_context) == (False, 3680)
    assert p.needs_int8_tower is False  # it has one


def test_int4_on_a_card_of_8_gb() -> None:
    """ONNX Runtime: an fp16 tower, embeddings and a page's features in the GPU's memory."""
    p = predict(PULSE_7B, DEVICES["rtx-4060"], BY_NAME["int4", "gpu"])
    page = 5 * 576 * 4096 * 2
    assert p.weights == 3_339_190_272 + 133_120_000 + 2 * TOWER + TABLE + page == 4_378_804_224
    # 8.0 - 0.5 - 4.379 - 0.6 GB leave 2,521,195,776; less the cache 373,712,128: below twice the
    # scratch of any chunk (512 rows: 375,390,208), so the smallest.
    assert (p.prefill_rows, p.activations) == (512, PASS_512)
    # (2,521,195,776 - 187,695,104) / 524,288 = 4,450.8: the whole context of 4,096.
    assert (p.fits, p.max_context) == (True, 4096)
    assert p.total == 4_378_804_224 + 2_147_483_648 + PASS_512 + 600_000_000
    # 620,756,992 x (1 - 1.015625 / 2)
    assert p.tower_saving == 305_528_832


def test_int4_on_a_cpu() -> None:
    """fp32 cache and scales, an int8 tower; both networks' activations count, in fp32."""
    p = predict(PULSE_7B, HOST, BY_NAME["int4", "cpu"])
    # 6,476,005,376 x (0.5 + 4/128) + 131,072,000 x (1 + 4/128) + 310,378,496 + the table
    assert p.weights == 3_440_377_856 + 135_168_000 + TOWER + TABLE == 4_148_068_352
    # 4 x (512 x (3 x 11008 + 6 x 4096) + 32 x 512 x 4096 + 5 x 577 x (2 x 4096 + 4 x 1024))
    assert p.activations == 4 * (29_491_200 + 67_108_864 + 35_450_880) == 528_203_776
    assert p.cache_bytes == 4096 * 2 * ROW
    # 8.0 - 1.0 - 4.148 - 0.2 GB - 528,203,776 = 2,123,727,872 = 2,025.3 positions of 1,048,576
    assert (p.fits, p.max_context) == (False, 2025)
    assert (p.tower, p.tower_saving, p.needs_int8_tower) == ("int8", 0, False)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4", "w8a8"])
def test_everything_on_80_gb(precision: str) -> None:
    p = predict(PULSE_7B, DEVICES["h100"], BY_NAME[precision, "gpu"])
    assert (p.fits, p.max_context) == (True, 4096)
    rows = {"w8a8": 2048}.get(precision, 4096)  # TensorRT's largest plan; the whole prompt
    assert p.prefill_rows == rows
    assert p.activations == (PASS_4096 if rows == 4096 else 2048 * 169_984 + 100_663_296)


# Device and precision -> the longest context, of 4,096. The two that are between, by hand: int4 as
# above; fp16 on a T4: 16.0 - 0.5 GB - 2 x 6,476,005,376 - 2 x 131,072,000 - 2 x 310,378,496 -
# 285,736,960 - 0.6 GB - 187,695,104 = 591,656,192 = 1,128.5 positions.
LONGEST = {
    "orin-nano-8gb": {"fp16": 0, "w8a8": 0, "int8": 0, "int4": 3680},
    "orin-nx-16gb": {"fp16": 0, "w8a8": 4096, "int8": 4096, "int4": 4096},
    "agx-orin-64gb": dict.fromkeys(("fp16", "w8a8", "int8", "int4"), 4096),
    "t4": {"fp16": 1128, "w8a8": 4096, "int8": 4096, "int4": 4096},
    "rtx-4060": {"fp16": 0, "w8a8": 0, "int8": 0, "int4": 4096},
    "a100": dict.fromkeys(("fp16", "w8a8", "int8", "int4"), 4096),
}


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_context(name: str) -> None:
    found = predictions(PULSE_7B, DEVICES[name], PROFILES, None)
    assert {p.precision: p.max_context for p in found} == LONGEST[name]
    assert {p.precision: p.fits for p in found} == {
        precision: longest == 4096 for precision, longest in LONGEST[name].items()
    }


@pytest.mark.parametrize(
    ("context", "fits"), [(1, True), (3679, True), (3680, True), (3681, False), (4096, False)]
)
def test_a_context_fits_up_to_the_longest(context: int, fits: bool) -> None:
    p = predict(PULSE_7B, DEVICES["orin-nano-8gb"], BY_NAME["int4", "gpu"], context)
    assert p.fits is fits
    assert p.cache_bytes == context * ROW


def test_latencies_of_int4_on_an_h100() -> None:
    """Bandwidth 3.35 TB/s, of which 70 % for weights and 60 % for the cache; 989 TFLOP/s in fp16,
    of which 50 % for linear layers and 40 % for attention; 20 us a layer.
    """
    p = predict(PULSE_7B, DEVICES["h100"], BY_NAME["int4", "gpu"])
    step = 3_472_310_272 / 2.345e12 + 2933 * ROW / 2.01e12 + 32 * 20e-6
    assert p.step == pytest.approx(step, rel=1e-12)
    assert p.step == pytest.approx(2.886e-3, rel=1e-3)
    linear = 2 * (2933 * 6_323_961_856 + 283_115_520)
    attention = ROW * 2933 * 2934 / 2
    prefill = linear / 494.5e12 + attention / 395.6e12 + 32 * 20e-6
    assert p.prefill == pytest.approx(prefill, rel=1e-12)
    vision = 1_794_358_108_160 / 494.5e12 + 156_822_876_160 / 395.6e12
    assert p.vision == pytest.approx(vision, rel=1e-12)
    assert p.ttft_cold == p.vision + p.prefill
    # Of 16 tokens more the reads take longer than the products.
    products = 2 * (16 * 6_323_961_856 + 283_115_520) / 494.5e12
    assert products < 3_472_310_272 / 2.345e12
    assert p.ttft_warm == pytest.approx(3_472_310_272 / 2.345e12 + 32 * 20e-6, rel=1e-12)


def test_latencies_of_int4_on_a_cpu() -> None:
    """Six passes of 512 rows at most; 54 % of int8's peak, 60 % of fp32's, 58 and 70 % of reads."""
    p = predict(PULSE_7B, HOST, BY_NAME["int4", "cpu"])
    linear = 2 * (2933 * 6_323_961_856 + 6 * 283_115_520)
    attention = ROW * 2933 * 2934 / 2
    prefill = linear / 2.16e11 + attention / 1.2e11 + 6 * 32 * 60e-6
    assert p.prefill == pytest.approx(prefill, rel=1e-12)
    step = 3_575_545_856 / 11.6e9 + 2933 * 2 * ROW / 14e9 + 32 * 60e-6
    assert p.step == pytest.approx(step, rel=1e-12)
    vision = 1_794_358_108_160 / 3e11 + 156_822_876_160 / 1.2e11
    assert p.vision == pytest.approx(vision, rel=1e-12)


def test_latencies_of_two_sets_on_a_cpu() -> None:
    """All rows of a prompt at w8a8's 85 % of the peak, then a step; a short one by int4 alone."""
    single = predict(PULSE_7B, HOST, BY_NAME["int4", "cpu"])
    both = predict(PULSE_7B, HOST, next(p for p in PROFILES if p.prefill == "w8a8"))
    assert both.weights - single.weights == 6_476_005_376  # a byte for each weight of the layers
    linear = 2 * (2933 * 6_323_961_856 + 6 * 283_115_520)
    attention = ROW * 2933 * 2934 / 2
    prefill = linear / 3.4e11 + attention / 1.2e11 + 6 * 32 * 60e-6 + single.step
    assert both.prefill == pytest.approx(prefill, rel=1e-12)
    assert (both.step, both.ttft_warm) == (single.step, single.ttft_warm)


def test_the_prompt_is_cut_to_the_context() -> None:
    p: Prediction = predict(PULSE_7B, HOST, BY_NAME["int4", "cpu"], 100)
    products = 2 * (100 * 6_323_961_856 + 283_115_520) / 2.16e11 + ROW * 5050 / 1.2e11
    assert p.prefill == pytest.approx(products + 32 * 60e-6, rel=1e-12)
    assert p.prefill_rows == 100


def test_each_precision_of_a_kind_is_predicted_once() -> None:
    names = [p.name for p in predictions(PULSE_7B, HOST, PROFILES, None)]
    assert names == ["int4", "int4 + w8a8", "int8", "w8a8"]
    without_int8 = dataclasses.replace(DEVICES["h100"], gemm={"fp16": 1e12})
    names = [p.precision for p in predictions(PULSE_7B, without_int8, PROFILES, None)]
    assert names == ["fp16", "int8", "int4"]
