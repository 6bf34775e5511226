"""The grid of an ECG page: whether there is one, how it is turned, how large its squares are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from pulse_edge.page.lines import Lines, Plane, find_lines
from pulse_edge.page.swatch import Mask, Swatch, grown, local_blocks
from pulse_edge.page.swatch import Plane as Bytes

# Squares of 5 mm that a page has across its long side: more are squares of 1 mm.
_MOST_SQUARES = 110
_RATIOS = (0.62, 1.62)  # of the pitches; beyond is no grid
_PARALLEL = 4.0  # degrees between the skews of both families
_LEAST_SIDE = 96  # px of a reduced page
_STRENGTH = 1.0  # nepers, of each family
_RUN = 9  # px of a reduced page: 2 mm
_LINES = 0.3
_LEAST_LINE = 2.9  # px from line to line, below which aliases may be taken for lines
_MIXED = 2.5  # nepers that two families cost which are no grid together
_FAINTEST = 1.5  # levels of 256: less are the steps of a slow change of light
_BAND = 96  # rows that are flattened at a time: fresh memory for all of them takes longer
_CLIP = 3.0  # standard deviations that one pixel counts at most


@dataclass(frozen=True)
class PageGrid:
    """The grid of a page. Sizes are pixels of the page.

    Attributes:
        pitch_x: pixels of 5 mm across.
        pitch_y: pixels of 5 mm down.
        skew: degrees by which the page is turned counter-clockwise.
        strength: nepers of power over the noise, of the weaker family of lines.
        certain: whether the pitches are. Lines that are all alike and few pixels apart may be
            aliases of others.
    """

    pitch_x: float
    pitch_y: float
    skew: float
    strength: float
    certain: bool


def find_grid(swatch: Swatch) -> PageGrid | None:
    """The grid of a reduced page; None if it shows none."""
    if min(swatch.dark.shape) < _LEAST_SIDE:
        return None
    grid = _grid_of(_flat(swatch.dark, grown(grown(swatch.ink))), swatch.scale)
    if grid is None and _is_of_lines(swatch.ink):  # a grid that is as dark as the traces
        grid = _grid_of(_flat(swatch.dark, np.zeros_like(swatch.ink)), swatch.scale)
    return grid


def _flat(plane: Bytes, cover: Mask) -> Plane:
    """Differences to the paper around; 0 where ink covers it."""
    clear = ~cover
    bare = plane * clear
    share = clear * np.uint8(255)
    sums, weights = (
        np.asarray(local_blocks(Image.fromarray(part)), np.float32) for part in (bare, share)
    )
    blocks = Image.fromarray(sums * (np.float32(255) / np.maximum(weights, np.float32(1))))
    flat = np.empty(plane.shape, np.float32)
    for top in range(0, len(plane), _BAND):
        band = slice(top, min(top + _BAND, len(plane)))
        part = np.subtract(plane[band], _enlarged(blocks, plane.shape, band), out=flat[band])
        part *= clear[band] & (np.abs(part) >= _FAINTEST)
    limit = _CLIP * math.sqrt(float(np.vdot(flat, flat)) / flat.size)
    clipped: Plane = np.clip(flat, -limit, limit, out=flat)
    return clipped


def _enlarged(blocks: Image.Image, shape: tuple[int, ...], rows: slice) -> Plane:
    """Some rows of a plane of blocks that is enlarged to a shape."""
    height, width = shape
    scale = blocks.height / height
    box = (0, rows.start * scale, blocks.width, rows.stop * scale)
    size = width, rows.stop - rows.start
    return np.asarray(blocks.resize(size, Image.Resampling.BILINEAR, box))


def _is_of_lines(ink: Mask) -> bool:
    """Whether ink lies in lines along the rows or columns, as letters and traces do not."""
    count = int(ink.sum())
    if not count:
        return False
    across = down = ink
    for _ in range(_RUN // 2):
        across = across[:, 1:-1] & across[:, 2:] & across[:, :-2]
        down = down[1:-1] & down[2:] & down[:-2]
    return int(across.sum() + down.sum()) > _LINES * count


def _grid_of(flat: Plane, scale: int) -> PageGrid | None:
    down = find_lines(flat)
    across = find_lines(flat.T) if down else ()
    long_side = max(flat.shape)
    pairs = [
        (rows, columns, _five(rows, long_side), _five(columns, long_side))
        for rows, columns in product(down[:6], across[:6])
    ]
    legal = [
        pair
        for pair in pairs
        if _RATIOS[0] <= pair[3] / pair[2] <= _RATIOS[1]
        and min(pair[0].strength, pair[1].strength) >= _STRENGTH
        and abs(pair[0].tilt + pair[1].tilt) <= _PARALLEL
    ]
    if not legal:
        return None
    rows, columns, pitch_y, pitch_x = max(
        legal, key=lambda pair: _likelihood(pair[0], pair[1], long_side)
    )
    return PageGrid(
        pitch_x * scale,
        pitch_y * scale,
        (rows.tilt - columns.tilt) / 2,
        min(rows.strength, columns.strength),
        min(rows.pitch, columns.pitch) > _LEAST_LINE,
    )


def _likelihood(rows: Lines, columns: Lines, long_side: int) -> float:
    """Of two families as one grid: one of lines of 1 mm does not go with most others.

    Lines of 5 mm in one direction only are likely the beat of lines of 1 mm with the pixels, unless
    the fifth harmonic says that lines of 1 mm are between them.
    """
    fine, coarse = sorted((rows, columns), key=lambda lines: lines.pitch)
    mixed = _is_fine(fine, long_side) and not _is_fine(coarse, long_side)
    strongest = coarse.peaks.index(max(coarse.peaks)) + 1
    cost = _MIXED if mixed and strongest not in (1, 5) else 0.0
    return rows.strength + columns.strength - cost


def _is_fine(lines: Lines, long_side: int) -> bool:
    """Whether lines are 1 mm apart, not 5."""
    return long_side / lines.pitch > _MOST_SQUARES


def _five(lines: Lines, long_side: int) -> float:
    """Pixels of 5 mm."""
    return lines.pitch * 5 if _is_fine(lines, long_side) else lines.pitch
