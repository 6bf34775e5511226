"""How soft the edges of a page's strokes are."""

from __future__ import annotations

import numpy as np
from PIL import Image

_TILE = 128  # px of the page
_TILES = 6  # along an edge of the page, at most
_CONTRAST = 30  # least difference of grey in a tile that shows a stroke
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
    grey = np.asarray(tile.convert("L"), np.int16)
    black, paper = np.percentile(grey[::2, ::2], (0.2, 75))
    contrast = float(paper - black)
    if contrast < _CONTRAST:
        return None
    slopes = (np.abs(np.diff(grey, axis=axis)) for axis in (1, 0))
    across, down = (max(1.0, _steepest(slope)) for slope in slopes)
    return _STEP * contrast / across, _STEP * contrast / down


def _steepest(slopes: np.ndarray) -> float:
    """The slope that three pixels in 1,000 exceeds."""
    counts = np.cumsum(np.bincount(slopes.reshape(-1), minlength=256))
    return float(np.searchsorted(counts, 0.997 * counts[-1]))
