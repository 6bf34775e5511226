"""Strokes, pixel by pixel, against the formula of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pulse_edge.ecg import raster
from pulse_edge.ecg.raster import stroke

Segment = tuple[float, float, float, float]


def distance(x: float, y: float, segment: Segment) -> float:
    """Of a point to a segment."""
    x0, y0, x1, y1 = segment
    length = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length if length else 0.0
    along = min(1.0, max(0.0, along))
    return math.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


def covered(shape: tuple[int, int], segments: list[Segment], width: float) -> np.ndarray:
    """Coverage of each pixel: half the width and half a pixel, less the nearest distance."""
    ink = np.zeros(shape)
    for row, column in np.ndindex(shape):
        nearest = min(distance(column + 0.5, row + 0.5, segment) for segment in segments)
        ink[row, column] = min(1.0, width, max(0.0, width / 2 + 0.5 - nearest))
    return ink * 255


SEGMENTS: list[Segment] = [
    (3, 4.25, 12.5, 4.25),
    (18.2, 3.1, 18.2, 9.7),
    (20.1, 14.9, 6.3, 8.2),
    (2.5, 12.5, 2.5, 12.5),  # a dot
    (10.4, 11.3, 10.9, 11.2),
    (-3, 1.2, 4, -2.5),  # over the corners
    (21, 17, 30, 12.1),
    (-9, -9, -8, -8),  # outside
    (40, 3, 50, 3),
    (3, 40, 9, 44),
]


@pytest.mark.parametrize("width", [0.3, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("chunk", [1 << 18, 40])
def test_a_stroke_covers_what_the_formula_says(
    width: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster, "CHUNK", chunk)
    ink = np.zeros((18, 24), np.uint8)
    stroke(ink, np.array(SEGMENTS, np.float32), width)
    assert np.abs(ink - covered((18, 24), SEGMENTS, width)).max() <= 0.51
    for segment in SEGMENTS:  # also where no other line is near
        alone = np.zeros((18, 24), np.uint8)
        stroke(alone, np.array([segment], np.float32), width)
        assert np.abs(alone - covered((18, 24), [segment], width)).max() <= 0.51


@pytest.mark.parametrize("width", [1.0, 2.5])
def test_a_stroke_at_an_edge_covers_the_last_rows_and_columns(width: float) -> None:
    edges: list[Segment] = [(0, 0, 7, 0), (0, 0, 0, 5), (7, 0, 7, 5), (0, 5, 7, 5)]
    for segment in edges:
        ink = np.zeros((5, 7), np.uint8)
        stroke(ink, np.array([segment], np.float32), width)
        assert np.abs(ink - covered((5, 7), [segment], width)).max() <= 0.51
        assert ink.any()


def test_ink_only_grows() -> None:
    ink = np.full((6, 6), 100, np.uint8)
    stroke(ink, np.array([(0, 3.25, 6, 3.25)], np.float32), 1)
    assert ink[0].tolist() == [100] * 6
    assert ink[3].tolist() == [191] * 6  # 0.75, rounded
