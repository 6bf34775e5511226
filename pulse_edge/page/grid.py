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
_SQUARENESS = 3.0  # nepers for a ratio of e
_RUN = 9  # px of a reduced page: 2 mm
_LINES = 0.3
_LEAST_LINE = 2.9  # px from line to line, below which aliases may be taken for lines
_USUALNESS = 2.5  # nepers for e times as many squares
_USUAL_SQUARES = 54  # across the long side of a sheet
_FAINTEST = 1.5  # levels of 256: less are the steps of a slow change of light
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
    bare = np.where(cover, np.uint8(0), plane)
    share = np.where(cover, np.uint8(0), np.uint8(255))
    sums, weights = (
        np.asarray(local_blocks(Image.fromarray(part)), np.float32) for part in (bare, share)
    )
    blocks = Image.fromarray(sums * (np.float32(255) / np.maximum(weights, np.float32(1))))
    size = plane.shape[1], plane.shape[0]
    flat = plane - np.asarray(blocks.resize(size, Image.Resampling.BILINEAR))
    flat[cover | (np.abs(flat) < _FAINTEST)] = 0
    limit = _CLIP * math.sqrt(float(np.vdot(flat, flat)) / flat.size)
    clipped: Plane = np.clip(flat, -limit, limit, out=flat)
    return clipped


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
    across = find_lines(np.ascontiguousarray(flat.T)) if down else ()
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
        legal, key=lambda pair: pair[0].strength + pair[1].strength
    )
    return PageGrid(
        pitch_x * scale,
        pitch_y * scale,
        (rows.tilt - columns.tilt) / 2,
        min(rows.strength, columns.strength),
        min(rows.pitch, columns.pitch) > _LEAST_LINE,
    )


def _likelihood(pair: tuple[Lines, Lines, float, float], long_side: int) -> float:
    """Of two families as one grid: most grids are square, and most sheets of one size."""
    rows, columns, pitch_y, pitch_x = pair
    unequal = abs(math.log(pitch_x / pitch_y))
    unusual = abs(math.log(long_side / max(pitch_x, pitch_y) / _USUAL_SQUARES))
    return rows.strength + columns.strength - _SQUARENESS * unequal - _USUALNESS * unusual


def _five(lines: Lines, long_side: int) -> float:
    """Pixels of 5 mm."""
    return lines.pitch * 5 if long_side / lines.pitch > _MOST_SQUARES else lines.pitch
