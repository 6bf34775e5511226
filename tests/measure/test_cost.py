"""Work and traffic of PULSE-7B's networks, with the arithmetic written out.

Sizes: decoder 32 layers, width 4096, 32 heads of 128, MLP 11008, vocabulary 32000; tower 23 of 24
layers, width 1024, MLP 4096, 24 x 24 patches of 14 x 14 pixels; projector of two layers.
"""

from __future__ import annotations

import dataclasses

import pytest

from pulse_edge.measure import cost
from pulse_edge.measure.profiles import PULSE_7B

TEXT, VISION = PULSE_7B.text, PULSE_7B.vision
GROUPED = dataclasses.replace(TEXT, kv_heads=8)

ATTENTION = 67_108_864  # 4 x 4096 x 4096: q, k, v, o
MLP = 135_266_304  # 3 x 4096 x 11008: gate, up, down
QKV = 50_331_648  # 3 x 4096 x 4096
HEAD = 131_072_000  # 4096 x 32000
TOWER = 289_406_976  # 23 x (4 x 1024 x 1024 + 2 x 1024 x 4096)
PROJECTOR = 20_971_520  # 1024 x 4096 + 4096 x 4096
PATCHES = 602_112  # 3 x 14 x 14 x 1024


def test_elements_of_a_decoder_layer() -> None:
    assert cost.layer_weights(TEXT) == ATTENTION + MLP == 202_375_168
    # q and o keep 4096 x 4096 each; k and v shrink to 4096 x 1024 each.
    assert cost.layer_weights(GROUPED) == 2 * 16_777_216 + 2 * 4_194_304 + MLP == 177_209_344


@pytest.mark.parametrize(
    ("stored", "bytes_"),
    # keys and values of 32 layers x 32 heads x 128
    [("fp32", 1_048_576), ("fp16", 524_288), ("int8", 262_144)],
)
def test_a_position_of_the_cache(stored: str, bytes_: int) -> None:
    assert cost.cache_row(TEXT, stored) == bytes_
    assert cost.cache_row(GROUPED, stored) == bytes_ // 4


@pytest.mark.parametrize(
    ("tokens", "before", "size", "expected"),
    [
        (10, 0, 0, [(0, 10)]),
        (10, 7, 0, [(7, 10)]),
        (10, 0, 10, [(0, 10)]),
        (10, 0, 9, [(0, 9), (9, 1)]),
        (10, 3, 4, [(3, 4), (7, 4), (11, 2)]),
        (10, 3, 5, [(3, 5), (8, 5)]),
        (1, 99, 512, [(99, 1)]),
        (2880, 0, 512, [*((512 * i, 512) for i in range(5)), (2560, 320)]),
    ],
)
def test_passes_over_a_prompt(
    tokens: int, before: int, size: int, expected: list[tuple[int, int]]
) -> None:
    assert list(cost.passes(tokens, before, size)) == expected


@pytest.mark.parametrize("rows", [0, 1, 2, 16, 512, 2880])
def test_linear_layers(rows: int) -> None:
    """All rows take 31 whole layers and the last one's q, k, v; one row takes the rest."""
    every = 31 * (ATTENTION + MLP) + QKV
    assert every == 6_323_961_856
    once = ATTENTION + MLP - QKV + HEAD
    assert once == 283_115_520
    assert cost.linear(TEXT, rows) == 2 * (rows * every + once)


def test_linear_layers_of_a_page() -> None:
    assert cost.linear(TEXT, 2880) == 36_426_586_521_600  # 2 x (2880 x 6,323,961,856 + 283,115,520)
    # q, k, v of grouped heads: 4096 x 128 x (32 + 16) = 25,165,824
    grouped = 2 * (2880 * (31 * 177_209_344 + 25_165_824) + 177_209_344 - 25_165_824 + HEAD)
    assert cost.linear(GROUPED, 2880) == grouped


@pytest.mark.parametrize(
    ("before", "rows", "pairs"),
    [
        (0, 1, 1),
        (0, 2, 3),
        (0, 2880, 4_148_640),  # 2880 x 2881 / 2
        (2880, 1, 2881),
        (512, 512, 393_472),  # 512 x 512 + 512 x 513 / 2
        (7, 3, 27),  # 3 x 7 + 6
    ],
)
def test_attention(before: int, rows: int, pairs: int) -> None:
    """4 x 32 layers x 4096 FLOP a pair, with as many query heads whatever the cache's."""
    assert cost.attention(TEXT, before, rows) == 524_288 * pairs
    assert cost.attention(GROUPED, before, rows) == 524_288 * pairs


def test_the_tower() -> None:
    assert cost.vision_weights(VISION, 4096, 2) == TOWER + PROJECTOR == 310_378_496
    assert cost.vision_weights(VISION, 4096, 1) == TOWER + 4_194_304
    assert cost.vision_weights(VISION, 5120, 2) == TOWER + 1024 * 5120 + 5120 * 5120


@pytest.mark.parametrize("views", [1, 3, 5])
def test_work_of_views(views: int) -> None:
    """577 rows a view: 576 patches and the class token."""
    linear = 2 * views * 577 * (TOWER + PROJECTOR + PATCHES)
    assert cost.vision_linear(VISION, 4096, 2, views) == linear
    pairs = 577 * 577
    assert cost.vision_attention(VISION, views) == views * 4 * 23 * 1024 * pairs


def test_work_of_a_page() -> None:
    assert cost.vision_linear(VISION, 4096, 2, 5) == 1_794_358_108_160
    assert cost.vision_attention(VISION, 5) == 156_822_876_160
