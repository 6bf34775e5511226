"""A 12-lead recording drawn as a page.

PULSE was trained on pages made by ecg-image-kit (github.com/alphanumericslab/ecg-image-kit,
`ecg_plot.py`); the page drawn here by default has the same size, grid, colours, line widths, row
positions and texts. Constants marked [kit] come from there. No measured value is printed: the page
shows the signals and scales.

Pixel coordinates are continuous: (0, 0) is the upper left corner of the page, and the pixel in row
i and column j is centred on (j + 0.5, i + 0.5).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.ecg.layout import PULSE_STYLE, Cell, Color, PageStyle
from pulse_edge.ecg.placement import cell_samples, check_placement
from pulse_edge.ecg.raster import Bytes, Floats, stroke
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.spacing import GAP_MM, arrange
from pulse_edge.ecg.texts import write_texts


def draw_page(
    recording: Recording, style: PageStyle = PULSE_STYLE, header: str | None = None
) -> Image.Image:
    """The page as an RGB image of `style.size`. The same arguments give the same bytes.

    The first 10 s are drawn (5 s at 50 mm/s). A shorter recording leaves the rest blank, a gap
    stays open. Leads that the recording lacks are named in place, without a trace, and listed as
    "not recorded" beside the scales. Rows whose traces would meet are moved apart, or drawn at a
    lower gain, see `spacing.arrange`.

    Args:
        recording: what to draw.
        style: how the page looks.
        header: lines of text for the upper left corner. See `lettering` for its letters.

    Raises:
        RecordingError: there is nothing to draw, or a lead is not where the page draws it.
        ParameterError: the header does not fit.
    """
    page = _grid(style).reshape(-1, 3)
    ink = _ink(recording, style, header).reshape(-1)
    inked = np.flatnonzero(ink != 0)
    paper = page[inked].astype(np.float32)
    color = np.array(_rgb(style.ink), np.float32)
    page[inked] = paper + (color - paper) * (ink[inked, None] / np.float32(255)) + 0.5
    width, height = style.size
    return Image.fromarray(page.reshape(height, width, 3))


def draw_ink(
    recording: Recording, style: PageStyle = PULSE_STYLE, header: str | None = None
) -> Image.Image:
    """Everything but paper and grid as coverage: an image of mode L, 255 = ink.

    Arguments and errors are those of `draw_page`.
    """
    return Image.fromarray(_ink(recording, style, header))


def draw_grid(style: PageStyle = PULSE_STYLE) -> Image.Image:
    """The empty sheet, RGB: lines every 1 and 5 mm from the lower left corner.

    Each line is centred on a pixel.
    """
    return Image.fromarray(_grid(style))


def _ink(recording: Recording, style: PageStyle, header: str | None) -> Bytes:
    """Coverage by ink, uint8 [height, width]."""
    missing = recording.missing
    check_placement(recording, style)
    arrangement = arrange(recording, style, bool(header))
    style, cells = arrangement.style, arrangement.cells
    traces = [_trace(recording, cell, style) for cell in cells if cell.lead not in missing]
    width, height = style.size
    ink = np.zeros((height, width), np.uint8)
    stroke(ink, np.concatenate(traces), style.px(style.trace_pt))
    if style.show_calibration:
        stroke(ink, _pulses(cells, style), style.px(1.5 * style.trace_pt))
    if style.show_separators:
        reach = 3.15 * style.px_per_mm  # [kit]
        bars = [(cell.x, cell.y - reach, cell.x, cell.y + reach) for cell in cells if cell.column]
        stroke(ink, np.array(bars, np.float32).reshape(-1, 4), style.px(3 * style.trace_pt))
    write_texts(ink, style, missing, header, cells)
    return ink


def _pulses(cells: tuple[Cell, ...], style: PageStyle) -> Floats:
    """Calibration pulses as line segments, [n, 4] in pixels.

    A pulse is 0.2 s wide and 1 mV high, and ends where the trace begins. A row whose pulse would
    meet the one above it has none.
    """
    pulse = np.array([(-0.2, 0, -0.2, -1), (-0.2, -1, 0, -1), (0, -1, 0, 0)], np.float32)
    pulse *= np.array([style.px_per_second, style.px_per_mv] * 2, np.float32)
    pulses = []
    free = -math.inf
    for cell in sorted((cell for cell in cells if cell.column == 0), key=lambda cell: cell.y):
        if cell.y - style.px_per_mv > free:
            pulses.append(pulse + np.array([cell.x, cell.y] * 2, np.float32))
            free = cell.y + GAP_MM * style.px_per_mm
    return np.concatenate(pulses)


def _grid(style: PageStyle) -> Bytes:
    """Paper and grid, uint8 [height, width, 3]."""
    width, height = style.size
    grid_pt = style.grid_pt if style.show_grid else 0.0
    across = grid_cover(width, style, grid_pt)
    down = grid_cover(height, style, grid_pt)[:, ::-1]
    # Few rows differ, so blend each kind of row once.
    kinds, row_kind = np.unique(down, axis=1, return_inverse=True)
    rows = np.empty((kinds.shape[1], width, 3))
    rows[:] = style.paper
    colors = (style.grid_minor, style.grid_major)
    for color, in_row, in_column in zip(colors, across, kinds, strict=True):
        cover = 1 - (1 - in_column[:, None]) * (1 - in_row)
        rows += cover[..., None] * (np.array(color) - rows)
    return (rows * 255 + 0.5).astype(np.uint8)[row_kind.reshape(-1)]


def grid_cover(length: int, style: PageStyle, grid_pt: float) -> Floats:
    """How much of each pixel along one axis the grid's lines cover.

    Args:
        length: pixels of the axis.
        style: for its resolution.
        grid_pt: width of the lines.

    Returns:
        float32 [2 (minor, major), length], 0..1.
    """
    cover = np.zeros((2, length), np.float32)
    half = style.px(grid_pt) / 2
    lines = np.arange(math.ceil(length / style.px_per_mm))
    centre = np.floor(lines * style.px_per_mm).astype(int)
    major = (lines % 5 == 0).astype(int)
    for offset in range(-math.ceil(half), math.ceil(half) + 1):
        covered = max(0.0, min(half, abs(offset) + 0.5) - max(-half, abs(offset) - 0.5))
        inside = (centre + offset >= 0) & (centre + offset < length)
        np.maximum.at(cover, (major[inside], centre[inside] + offset), np.float32(covered))
    return cover


def _trace(recording: Recording, cell: Cell, style: PageStyle) -> Floats:
    """The cell's part of its lead as line segments, [n, 4] (x0, y0, x1, y1) in pixels."""
    samples = cell_samples(cell, recording.rate)
    first = samples.start
    volts = recording.signals[recording.leads.index(cell.lead), samples].astype(np.float64)
    volts[np.isinf(volts)] = np.nan
    x = (
        cell.x
        + ((first + np.arange(len(volts))) / recording.rate - cell.start) * style.px_per_second
    )
    height = style.size[1]
    return _segments(x, np.clip(cell.y - volts * style.px_per_mv, -height, 2 * height))


def _segments(x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """Points -> segments [n, 4]; NaN breaks the line, a lone point becomes a dot.

    Of the points in each half pixel column only the lowest and the highest are kept. Nothing
    visible is lost, and a recording at 10 kHz costs no more than one at 1 kHz.
    """
    good = np.isfinite(y)
    run, x, y = np.cumsum(~good)[good], x[good], y[good]
    if not len(x):
        return np.empty((0, 4), np.float32)
    starts = np.diff(run, prepend=-1) != 0
    ends = np.append(starts[1:], True)
    group = np.cumsum(starts | (np.diff(np.floor(2 * x), prepend=-1) != 0))
    order = np.lexsort((y, group))
    edge = np.diff(group, prepend=0) != 0
    keep = starts | ends
    keep[order[edge]] = True
    keep[order[np.append(edge[1:], True)]] = True
    points = np.stack([x, y], axis=1).astype(np.float32)
    dots = points[starts & ends]
    points, run = points[keep], run[keep]
    lines = np.hstack([points[:-1], points[1:]])[run[1:] == run[:-1]]
    return np.concatenate([lines, np.hstack([dots, dots])])


def _rgb(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in color)
    return red, green, blue
