"""Strokes that run off a page."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pulse_edge.page.strokes import cut_strokes
from pulse_edge.page.swatch import Swatch

SIZE = (1100, 850)
Points = list[tuple[float, float]]


def swatch(ink: NDArray[np.bool_]) -> Swatch:
    plane = np.where(ink, np.uint8(0), np.uint8(255))
    return Swatch(1, plane, plane, ink, 255.0, 0.0, 0.0)


def drawn(lines: list[Points], width: int = 1) -> NDArray[np.bool_]:
    image = Image.new("1", SIZE)
    draw = ImageDraw.Draw(image)
    for points in lines:
        draw.line(points, 1, width)
    return np.asarray(image)


def at_side(points: Points, side: str) -> Points:
    """Points of the left side, (depth, place along it), at another."""
    width, height = SIZE
    return {
        "left": [(depth, along) for depth, along in points],
        "right": [(width - 1 - depth, along) for depth, along in points],
        "top": [(along, depth) for depth, along in points],
        "bottom": [(along, height - 1 - depth) for depth, along in points],
    }[side]


WAVES: dict[str, Points] = {
    "level": [(0, 0), (60, 0)],
    "slanting": [(0, 0), (20, 20), (60, 0)],
    "steep": [(0, 0), (4, 40), (60, 40)],
    "up and down": [(0, 0), (2, -40), (5, 30), (60, 0)],
    "very steep": [(0, 0), (5, 110), (60, 110)],
    "cut along": [(0, -25), (0, 25), (3, 60), (60, 60)],
}


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
@pytest.mark.parametrize("wave", WAVES)
@pytest.mark.parametrize("width", [1, 3])
def test_waves_that_run_off_are_counted(side: str, wave: str, width: int) -> None:
    lines = [
        at_side([(depth, along + offset) for depth, along in WAVES[wave]], side)
        for offset in (60, 190, 320, 450)
    ]
    cut = cut_strokes(swatch(drawn(lines, width)))
    assert cut.sides == (side,)
    assert cut.strokes == 4


def test_a_line_with_a_gap_is_one() -> None:
    ink = drawn([at_side([(0, along), (60, along)], "left") for along in (60, 190)])
    ink = ink.copy()
    ink[:, 3] = False
    assert cut_strokes(swatch(ink)).strokes == 0
    steep = np.zeros_like(ink)
    for column, rows in enumerate(((60, 90), (93, 120), (122, 150), (152, 180), (180, 200))):
        steep[rows[0] : rows[1], column] = True
    steep[199:201, 5:60] = True
    assert cut_strokes(swatch(steep)).strokes == 1


@pytest.mark.parametrize("length", [45, 60, 80])
@pytest.mark.parametrize("side", ["left", "top"])
def test_dark_patches_beside_the_page_are_no_strokes(length: int, side: str) -> None:
    ink = np.zeros((SIZE[1], SIZE[0]), np.bool_)
    for start in (50, 150, 250, 350):
        block = (slice(start, start + length), slice(0, 40))
        ink[block if side == "left" else block[::-1]] = True
    assert cut_strokes(swatch(ink)).sides == ()


def test_a_frame_is_no_cut_and_ink_inside_is_none() -> None:
    frame = drawn([[(0, 0), (0, 849)], [(0, 300), (90, 300)], [(0, 200), (90, 200)]])
    assert cut_strokes(swatch(frame)).sides == ()
    inside = drawn([[(8, 100 * n), (90, 100 * n)] for n in range(6)])
    assert cut_strokes(swatch(inside)) == (0, (), False)
    comb = drawn([[(0, 10 * n), (90, 10 * n)] for n in range(59)])
    assert cut_strokes(swatch(comb)).dense
