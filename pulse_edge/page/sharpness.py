"""How soft the edges of a page's strokes are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

_TILE = 128  # px of the page
_TILES = 6  # along an edge of the page, at most
_CONTRAST = 30  # least difference of grey in a tile that shows a stroke
_EDGE = 0.0008  # share of a tile's pixels that are the steepest of an edge
_LEAST = 3  # tiles with strokes that are enough
# A Gaussian of standard deviation s turns a step of height 1 into a slope of 0.4 / s at most.
_STEP = 0.4


def edge_blur(image: Image.Image) -> float | None:
    """Standard deviation of the blur in pixels, as edges of ink show it.

    The median over tiles of the page, in the direction that is softer. A sharp page has 0.5 or
    less. None if too few tiles have ink.

    Args:
        image: RGB, not reduced.
    """
    tiles = [widths for box in _boxes(*image.size) if (widths := _widths(image.crop(box)))]
    if len(tiles) < _LEAST:
        return None
    return float(np.median(np.array(tiles), axis=0).max())


def _boxes(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Tiles that are spread over the page."""
    across = np.linspace(0, max(0, width - _TILE), min(_TILES, max(1, width // _TILE)))
    down = np.linspace(0, max(0, height - _TILE), min(_TILES, max(1, height // _TILE)))
    return [
        (int(x), int(y), min(width, int(x) + _TILE), min(height, int(y) + _TILE))
        for y in down
        for x in across
    ]


def _widths(tile: Image.Image) -> tuple[float, float] | None:
    """Blur of edges across and down; None for a tile without strokes."""
    grey = np.asarray(tile.convert("L"))
    black, paper = _quantiles(grey[::2, ::2], (0.002, 0.75))
    contrast = paper - black
    if contrast < _CONTRAST:
        return None
    across, down = (
        max(1.0, _steepest(near, far))
        for near, far in ((grey[:, 1:], grey[:, :-1]), (grey[1:], grey[:-1]))
    )
    return _STEP * contrast / across, _STEP * contrast / down


def _quantiles(values: Bytes, shares: tuple[float, ...]) -> list[float]:
    """As `numpy.quantile` gives them, which takes longer than all else that is done to a tile."""
    places = [share * (values.size - 1) for share in shares]
    floors = [int(place) for place in places]
    most = values.size - 1
    wanted = sorted({min(most, floor + step) for floor in floors for step in (0, 1)})
    ordered = np.partition(values.reshape(-1), wanted)
    return [
        float(ordered[floor])
        + (place - floor) * (float(ordered[min(most, floor + 1)]) - float(ordered[floor]))
        for place, floor in zip(places, floors, strict=True)
    ]


def _steepest(near: Bytes, far: Bytes) -> float:
    """The slope that a dozen pixels of a tile exceed: a tile may hold one short edge."""
    slopes = (np.maximum(near, far) - np.minimum(near, far)).reshape(-1)
    if not slopes.size:
        return 0.0
    place = math.ceil((1 - _EDGE) * slopes.size) - 1
    return float(np.partition(slopes, place)[place])
