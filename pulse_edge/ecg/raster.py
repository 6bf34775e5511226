"""Strokes as coverage of pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CHUNK = 1 << 18  # candidate pixels at a time, so that the temporaries stay in cache


def stroke(ink: Bytes, segments: Floats, width: float) -> None:
    """Draw round-ended line segments, in place.

    A pixel's coverage follows from the distance d of its centre to the nearest segment:
    width / 2 + 0.5 - d, cut to 0..1. Segments of one trace therefore join without seams.

    Args:
        ink: coverage, uint8 [height, width], which only grows.
        segments: [n, 4] (x0, y0, x1, y1) in pixels.
        width: of the line, in pixels.
    """
    rows, columns = ink.shape
    radius = np.float32(width / 2 + 0.5)
    most = np.float32(min(1.0, width))
    x = segments[:, 0::2]
    y = segments[:, 1::2]
    left = np.clip(np.ceil(x.min(1) - radius - 0.5), 0, columns).astype(np.int32)
    right = np.clip(np.floor(x.max(1) + radius + 0.5), 0, columns).astype(np.int32)
    top = np.clip(np.ceil(y.min(1) - radius - 0.5), 0, rows).astype(np.int32)
    bottom = np.clip(np.floor(y.max(1) + radius + 0.5), 0, rows).astype(np.int32)
    across = right - left
    count = across * (bottom - top)
    delta = segments[:, 2:] - segments[:, :2]
    inverse = 1 / np.maximum((delta**2).sum(1), np.float32(1e-12))
    flat = ink.reshape(-1)
    cuts = np.flatnonzero(np.diff(np.cumsum(count) // CHUNK)) + 1
    for part in np.split(np.arange(len(count)), cuts):
        number = count[part]
        at = np.repeat(part, number)  # the segment that each candidate pixel belongs to
        nth = np.arange(len(at)) - np.repeat(np.cumsum(number) - number, number)
        row, column = np.divmod(nth.astype(np.int32), across[at])
        row, column = row + top[at], column + left[at]
        px = column.astype(np.float32) + np.float32(0.5) - segments[at, 0]
        py = row.astype(np.float32) + np.float32(0.5) - segments[at, 1]
        dx, dy = delta[at, 0], delta[at, 1]
        along = np.clip((px * dx + py * dy) * inverse[at], 0, 1)
        distance = np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2)
        cover = np.clip(radius - distance, 0, most) * np.float32(255) + np.float32(0.5)
        np.maximum.at(flat, row * columns + column, cover.astype(np.uint8))
