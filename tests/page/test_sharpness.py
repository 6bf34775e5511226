"""How soft edges are, by tiles with much and with little ink."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from pulse_edge.page.sharpness import edge_blur

SIZE = (1100, 850)


def strokes(kind: str, pen: int) -> Image.Image:
    """A page of lines across, with a short spike here and there; of pulses; of both."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    for row in range(80, SIZE[1], 128):
        if kind != "spikes":
            draw.line([(20, row), (1080, row)], "black", pen)
        for column in range(50, SIZE[0], 40 if kind == "spikes" else 128):
            height = {"lines": 8, "spikes": 90, "both": 50}[kind]
            if kind == "spikes":
                draw.rectangle((column, row - height, column + 9, row), None, "black", pen)
            else:
                draw.line([(column, row), (column, row - height)], "black", pen)
    return image


@pytest.mark.parametrize("kind", ["lines", "spikes", "both"])
@pytest.mark.parametrize("pen", [1, 2, 4])
def test_a_sharp_page_has_half_a_pixel(kind: str, pen: int) -> None:
    blur = edge_blur(strokes(kind, pen))
    assert blur is not None
    assert blur < 0.6


@pytest.mark.parametrize("kind", ["lines", "spikes", "both"])
@pytest.mark.parametrize("radius", [2.0, 3.0, 4.0])
def test_blur_shows_whatever_the_strokes_are(kind: str, radius: float) -> None:
    soft = strokes(kind, 3).filter(ImageFilter.GaussianBlur(radius))
    blur = edge_blur(soft)
    assert blur is not None
    assert 0.6 * radius < blur < 2 * radius


def test_a_page_without_strokes_has_none() -> None:
    assert edge_blur(Image.new("RGB", SIZE, "white")) is None
    assert edge_blur(Image.new("RGB", (1, 1), "white")) is None
    noise = np.random.default_rng(0).normal(200, 3, (850, 1100)).astype(np.uint8)
    assert edge_blur(Image.fromarray(noise).convert("RGB")) is None


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (2, 2), (129, 40)])
def test_pages_of_any_shape_are_measured(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    blur = edge_blur(Image.fromarray(pixels))
    assert blur is None or blur > 0
