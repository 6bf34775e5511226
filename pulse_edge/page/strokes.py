"""Where ink lies on a page: at its borders, and in which direction its traces run."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulse_edge.page.swatch import Swatch

# Strokes that make a cut. At the top and the bottom tall waves run off a page that is whole.
_FEWEST = {"left": 2, "right": 2, "top": 4, "bottom": 4}
_SIDES = ("left", "right", "top", "bottom")
_THICKEST = 0.03  # of the long side: 8 mm of a page, a wave that is cut along
_THIN = 0.8  # share of ink in a stroke that runs along the border for longer than that
_STEEP = 150  # px that a stroke rises or falls within the depth
_GAP = 4  # px for which a steep stroke may be too faint, between two columns
_NEAR = np.ones(2 * _GAP + 1)
_FRAME = 0.12  # of a side
_DEPTH = 6  # px of a reduced page that a stroke which is cut goes inwards
_MOST = 40  # strokes at a side: more are a grid as dark as ink, or a picture
_LEAST_SIDE = 64  # px of a reduced page
_BINS = 4  # px that are one bin of a profile


class CutStrokes(NamedTuple):
    """Strokes that run off a page: how many, and which sides are cut."""

    strokes: int
    sides: tuple[str, ...]
    dense: bool  # whether there are too many for traces, or the page is too small to tell


def cut_strokes(swatch: Swatch) -> CutStrokes:
    """Strokes of ink that reach the border of a page.

    A side with ink along it is not counted: it is a frame, or what a photo shows beside the page.
    """
    ink = swatch.ink
    if min(ink.shape) < _LEAST_SIDE:
        return CutStrokes(0, (), True)
    edges = (ink[:, :_DEPTH], ink[:, : -_DEPTH - 1 : -1], ink[:_DEPTH].T, ink[: -_DEPTH - 1 : -1].T)
    longest = max(2, math.ceil(_THICKEST * max(ink.shape)))
    counts = [_runs(edge, longest) for edge in edges]
    dense = max(counts) > _MOST
    sides = tuple(
        side for side, count in zip(_SIDES, counts, strict=True) if count >= _FEWEST[side]
    )
    return CutStrokes(sum(counts), sides, dense)


def _runs(edge: NDArray[np.bool_], longest: int) -> int:
    """Runs of ink along the border that go on inwards; 0 beside a frame.

    Runs over `longest` px count if they are thin: a steep wave, not something dark beside the page.
    """
    outer = edge[:, 0] | edge[:, 1]
    changes = np.flatnonzero(np.diff(outer.astype(np.int8), prepend=0, append=0))
    if len(changes) and (changes[1::2] - changes[::2]).max() > _FRAME * len(edge):
        return 0
    count = 0
    for start, stop in _merged(changes):
        block = edge[start:stop]
        if stop - start > longest and block.mean() > _THIN:
            continue
        count += _goes_inwards(edge, start, stop)
    return count


def _merged(changes: NDArray[np.intp]) -> list[tuple[int, int]]:
    """(start, stop) of runs; those that a few pixels separate are one stroke."""
    runs: list[tuple[int, int]] = []
    for start, stop in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
        if runs and start - runs[-1][1] <= _GAP:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
    return runs


def _goes_inwards(edge: NDArray[np.bool_], start: int, stop: int) -> bool:
    """Whether ink that touches the border in these rows is connected with the innermost column.

    A stroke may be steep: the waves of a QRS complex leave the rows in which they touch the border.
    """
    low, high = max(0, start - _STEEP), min(len(edge), stop + _STEEP)
    part = edge[low:high]
    reached = np.zeros(high - low, np.bool_)
    reached[start - low : stop - low] = True
    for column in part.T[1:]:
        beside = np.convolve(reached, _NEAR, "same") > 0
        runs = np.cumsum(np.diff(column.astype(np.int8), prepend=0) == 1) * column
        touched = np.zeros(int(runs.max()) + 1, np.bool_)
        touched[runs[beside & column]] = True
        touched[0] = False  # which is no run
        reached = touched[runs]
        if not reached.any():
            return False
    return True


def lie_of_traces(swatch: Swatch) -> float | None:
    """Whether traces run across a page (over 0) or down (below 0).

    The logarithm of the ratio of two variances, those of ink by rows and by columns: rows of traces
    alternate with paper. None if there is little ink, or little page.
    """
    ink = swatch.ink
    if min(ink.shape) < _LEAST_SIDE or np.count_nonzero(ink) < 0.002 * ink.size:
        return None
    rows, columns = (_unevenness(ink, axis) for axis in (1, 0))
    return math.log((rows + 1e-9) / (columns + 1e-9))


def _unevenness(ink: NDArray[np.bool_], axis: int) -> float:
    """Variance of the ink by rows (axis 1) or columns (0), over its square mean.

    The outer tenth of the page is left out: headers and labels stand there.
    """
    profile = np.count_nonzero(ink, axis=axis) / ink.shape[axis]
    tenth = len(profile) // 10
    inner = profile[tenth : len(profile) - tenth]
    bins = inner[: len(inner) // _BINS * _BINS].reshape(-1, _BINS).mean(axis=1)
    return float(bins.var() / max(1e-9, bins.mean() ** 2))
