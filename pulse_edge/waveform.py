"""A 12-lead recording drawn as a page.

PULSE was trained on pages made by ecg-image-kit (github.com/alphanumericslab/ecg-image-kit, `ecg_plot.py`);
the page drawn here by default has the same size, grid, colours, line widths, row positions and texts.
Constants marked [kit] come from there. No measured value is printed: the page shows the signals and scales.

Pixel coordinates are continuous: (0, 0) is the upper left corner of the page, and the pixel in row i and
column j is centred on (j + 0.5, i + 0.5).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.errors import ParameterError, RecordingError
from pulse_edge.recording import LEADS, Recording, is_recording, read_recording

__all__ = [
    "GAINS", "LAYOUTS", "LEADS", "PULSE_STYLE", "SPEEDS", "Cell", "PageStyle", "Recording",
    "draw_grid", "draw_ink", "draw_page", "is_recording", "page_cells", "read_recording",
]  # fmt: skip

Color = tuple[float, float, float]
Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

MM_PER_INCH = 25.4
PT_PER_INCH = 72
TRACE_MM = 250.0  # width of the traces: 10 s at 25 mm/s, 5 s at 50 mm/s


class Layout(NamedTuple):
    """Leads of each column, top to bottom, and the leads drawn over the full width below them."""

    columns: tuple[tuple[str, ...], ...]
    strips: tuple[str, ...]


LAYOUTS = {
    "3x4": Layout((LEADS[0:3], LEADS[3:6], LEADS[6:9], LEADS[9:12]), ("II",)),
    "6x2": Layout((LEADS[0:6], LEADS[6:12]), ()),
    "12x1": Layout((LEADS,), ()),
}
SPEEDS = (25, 50)  # mm/s
GAINS = (5, 10, 20)  # mm/mV


# ---- the page ----------------------------------------------------------------------------------------------

_RANGES: dict[str, tuple[float, float]] = {
    "dpi": (30, 600),
    "width_in": (270 / MM_PER_INCH, 24),  # 250 mm of trace, calibration pulse, margins
    "height_in": (150 / MM_PER_INCH, 24),
    "grid_pt": (0, 4),
    "trace_pt": (0.1, 6),
    "text_pt": (4, 24),
    "label_mm": (-20, 20),
    "row_mm": (12, 100),
}


@dataclass(frozen=True)
class PageStyle:
    """How a page looks; by default like PULSE's training pages. Raises `ParameterError`.

    `*_in` are inches, `*_mm` millimetres, `*_pt` points (1/72 in); colours are red, green, blue in 0..1.
    """

    layout: str = "3x4"
    speed: float = 25  # mm/s
    gain: float = 10  # mm/mV
    strips: tuple[str, ...] | None = None  # leads drawn in full at the bottom; None: what the layout says
    dpi: float = 200
    width_in: float = 11
    height_in: float = 8.5
    row_mm: float | None = None  # distance between rows; None: page height / (rows + 2) [kit]
    label_mm: float = -7  # lead names: base line above (+) or below (-) the lead's zero line [kit]
    paper: Color = (1, 1, 1)
    ink: Color = (0, 0, 0)
    grid_major: Color = (1, 0, 0)  # every 5 mm [kit]
    grid_minor: Color = (0.996, 0.875, 0.859)  # every 1 mm [kit]
    grid_pt: float = 0.5  # [kit]
    trace_pt: float = 0.75  # [kit]; calibration pulse 1.5 times, column separators 3 times as wide
    text_pt: float = 11  # [kit]
    show_grid: bool = True
    show_calibration: bool = True
    show_separators: bool = True
    show_names: bool = True
    show_scale: bool = True  # "25mm/s", "10mm/mV"

    def __post_init__(self) -> None:
        for name, legal in (("layout", tuple(LAYOUTS)), ("speed", SPEEDS), ("gain", GAINS)):
            value = getattr(self, name)
            if value not in legal:
                raise ParameterError(f"{name} is {value!r}; expected one of {', '.join(map(str, legal))}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "row_mm" and value is None:
                continue
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ParameterError(f"{name} is {value!r}; expected {low:g} to {high:g}")
        for name in ("paper", "ink", "grid_major", "grid_minor"):
            value = getattr(self, name)
            if not (isinstance(value, tuple) and len(value) == 3 and all(0 <= part <= 1 for part in value)):
                raise ParameterError(f"{name} is {value!r}; expected (red, green, blue), each 0 to 1")
        strips = self.strips
        if strips is not None and not (
            isinstance(strips, tuple) and len(strips) <= 4 and all(lead in LEADS for lead in strips)
        ):
            raise ParameterError(f"strips is {strips!r}; expected a tuple of up to 4 of {', '.join(LEADS)}")
        if page_cells(self)[0].y < 10 * self.px_per_mm:
            raise ParameterError(f"row_mm is {self.row_mm}: too much for a page {self.height_in} in high")

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels."""
        return round(self.width_in * self.dpi), round(self.height_in * self.dpi)

    @property
    def px_per_mm(self) -> float:
        return self.dpi / MM_PER_INCH

    @property
    def px_per_second(self) -> float:
        return self.speed * self.px_per_mm

    @property
    def px_per_mv(self) -> float:
        return self.gain * self.px_per_mm

    def px(self, points: float) -> float:
        """Points to pixels."""
        return points * self.dpi / PT_PER_INCH


class Cell(NamedTuple):
    """A stretch of one lead on the page: `start` to `stop` seconds; `start` at 0 mV is pixel (`x`, `y`).

    Time t and amplitude v (mV) lie at (x + (t - start) * style.px_per_second, y - v * style.px_per_mv).
    """

    lead: str
    start: float
    stop: float
    x: float
    y: float
    column: int


@lru_cache(maxsize=64)
def page_cells(style: PageStyle) -> tuple[Cell, ...]:
    """Where every lead goes, in reading order, strips last. Time runs on from column to column."""
    columns, strips = LAYOUTS[style.layout]
    strips = strips if style.strips is None else style.strips
    width, height = (length * MM_PER_INCH for length in (style.width_in, style.height_in))
    rows = len(columns[0])
    pitch = style.row_mm or height / (rows + len(strips) + 2)
    left = 5 * math.floor((width - TRACE_MM) / 10) + 5  # whole squares, and the pulse [kit]
    step = TRACE_MM / len(columns)

    def cell(lead: str, column: int, mm: float, above_bottom: float) -> Cell:
        start = column * step / style.speed
        x = (left + column * step) * style.px_per_mm
        y = style.size[1] - round(above_bottom) * style.px_per_mm  # 0 mV on a grid line
        return Cell(lead, start, start + mm / style.speed, x, y, column)

    bottom = 0.5 + max(1, len(strips))
    cells = [
        cell(column[row], number, step, (bottom + rows - 1 - row) * pitch)
        for row in range(rows)
        for number, column in enumerate(columns)
    ]
    cells += [cell(lead, 0, TRACE_MM, (len(strips) - 0.5 - i) * pitch + 3) for i, lead in enumerate(strips)]
    return tuple(cells)


# ---- drawing -----------------------------------------------------------------------------------------------


PULSE_STYLE = PageStyle()


def draw_page(recording: Recording, style: PageStyle = PULSE_STYLE, header: str | None = None) -> Image.Image:
    """The page as an RGB image of `style.size`. The same arguments give the same bytes.

    The first 10 s are drawn (5 s at 50 mm/s); a shorter recording leaves the rest blank, a gap stays open.
    Leads that the recording lacks are named in place, without a trace, and listed as "not recorded" beside
    the scales. `header`: lines of text (Latin letters) for the upper left corner.

    Raises `RecordingError` when there is nothing to draw, `ParameterError` when the header does not fit.
    """
    page = _grid(style).reshape(-1, 3)
    ink = _ink(recording, style, header).reshape(-1)
    inked = np.flatnonzero(ink != 0)
    paper, color = page[inked].astype(np.float32), np.array(_rgb(style.ink), np.float32)
    page[inked] = paper + (color - paper) * (ink[inked, None] / np.float32(255)) + 0.5
    width, height = style.size
    return Image.fromarray(page.reshape(height, width, 3))


def draw_ink(recording: Recording, style: PageStyle = PULSE_STYLE, header: str | None = None) -> Image.Image:
    """Everything but paper and grid as coverage: an image of mode L, 255 = ink. Raises like `draw_page`."""
    return Image.fromarray(_ink(recording, style, header))


def draw_grid(style: PageStyle = PULSE_STYLE) -> Image.Image:
    """The empty sheet, RGB: lines every 1 and 5 mm from the lower left corner, each centred on a pixel."""
    return Image.fromarray(_grid(style))


def _ink(recording: Recording, style: PageStyle, header: str | None) -> Bytes:
    """uint8 [height, width]."""
    cells, missing = page_cells(style), recording.missing
    traces = [_trace(recording, cell, style) for cell in cells if cell.lead not in missing]
    if not traces:
        where = recording.source or "recording"
        raise RecordingError(f"{where}: nothing to draw in any of the leads {', '.join(LEADS)}")
    width, height = style.size
    ink = np.zeros((height, width), np.uint8)
    _stroke(ink, np.concatenate(traces), style.px(style.trace_pt))
    if style.show_calibration:  # 0.2 s wide, 1 mV high, ends where the trace begins
        pulse = np.array([(-0.2, 0, -0.2, -1), (-0.2, -1, 0, -1), (0, -1, 0, 0)], np.float32)
        pulse *= np.array([style.px_per_second, style.px_per_mv] * 2, np.float32)
        pulses = [pulse + np.array([cell.x, cell.y] * 2, np.float32) for cell in cells if cell.column == 0]
        _stroke(ink, np.concatenate(pulses), style.px(1.5 * style.trace_pt))
    if style.show_separators:
        reach = 3.15 * style.px_per_mm  # [kit]
        bars = [(cell.x, cell.y - reach, cell.x, cell.y + reach) for cell in cells if cell.column]
        _stroke(ink, np.array(bars, np.float32).reshape(-1, 4), style.px(3 * style.trace_pt))
    _write(ink, style, missing, header)
    return ink


def _grid(style: PageStyle) -> Bytes:
    """uint8 [height, width, 3]."""
    width, height = style.size
    grid_pt = style.grid_pt if style.show_grid else 0.0
    across, down = grid_cover(width, style, grid_pt), grid_cover(height, style, grid_pt)[:, ::-1]
    kinds, row_kind = np.unique(down, axis=1, return_inverse=True)  # few rows differ: blend each kind once
    rows = np.empty((kinds.shape[1], width, 3))
    rows[:] = style.paper
    for color, in_row, in_column in zip((style.grid_minor, style.grid_major), across, kinds, strict=True):
        cover = 1 - (1 - in_column[:, None]) * (1 - in_row)
        rows += cover[..., None] * (np.array(color) - rows)
    return (rows * 255 + 0.5).astype(np.uint8)[row_kind.reshape(-1)]


def grid_cover(length: int, style: PageStyle, grid_pt: float) -> Floats:
    """float32 [2 (minor, major), length]: how much of each pixel along one axis the grid's lines cover."""
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
    first = math.ceil(cell.start * recording.rate - 1e-6)
    stop = math.floor(cell.stop * recording.rate + 1e-6) + 1
    volts = recording.signals[recording.leads.index(cell.lead), first:stop].astype(np.float64)
    volts[np.isinf(volts)] = np.nan
    x = cell.x + ((first + np.arange(len(volts))) / recording.rate - cell.start) * style.px_per_second
    height = style.size[1]
    return _segments(x, np.clip(cell.y - volts * style.px_per_mv, -height, 2 * height))


def _segments(x: NDArray[np.float64], y: NDArray[np.float64]) -> Floats:
    """Points -> segments [n, 4]; NaN breaks the line, a lone point becomes a dot.

    Of the points in each half pixel column only the lowest and the highest are kept: nothing visible is lost,
    and a recording at 10 kHz costs no more than one at 1 kHz.
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


_CHUNK = 1 << 18  # candidate pixels at a time, so that the temporaries stay in cache


def _stroke(ink: Bytes, segments: Floats, width: float) -> None:
    """Draw round-ended segments [n, 4] of `width` pixels into `ink`, uint8 [height, width], in place.

    A pixel's coverage follows from the distance d of its centre to the nearest segment: width / 2 + 0.5 - d,
    cut to 0..1. Segments of one trace therefore join without seams.
    """
    rows, columns = ink.shape
    radius, most = np.float32(width / 2 + 0.5), np.float32(min(1.0, width))
    x, y = segments[:, 0::2], segments[:, 1::2]
    left = np.clip(np.ceil(x.min(1) - radius - 0.5), 0, columns).astype(np.int32)
    right = np.clip(np.floor(x.max(1) + radius + 0.5), 0, columns).astype(np.int32)
    top = np.clip(np.ceil(y.min(1) - radius - 0.5), 0, rows).astype(np.int32)
    bottom = np.clip(np.floor(y.max(1) + radius + 0.5), 0, rows).astype(np.int32)
    across = right - left
    count = across * (bottom - top)
    delta = segments[:, 2:] - segments[:, :2]
    inverse = 1 / np.maximum((delta**2).sum(1), np.float32(1e-12))
    flat = ink.reshape(-1)
    cuts = np.flatnonzero(np.diff(np.cumsum(count) // _CHUNK)) + 1
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


def _write(ink: Bytes, style: PageStyle, missing: tuple[str, ...], header: str | None) -> None:
    """Lead names, scales and header, into `ink`, uint8 [height, width], in place."""
    mm, size, cells = style.px_per_mm, style.px(style.text_pt), page_cells(style)
    height, width = ink.shape

    def text(x: float, base_line: float, line: str) -> None:
        glyphs, left, top = _glyphs(line, size)
        left, top = left + round(x), top + round(base_line)
        glyphs = glyphs[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
        spot = ink[max(0, top) :, max(0, left) :][: glyphs.shape[0], : glyphs.shape[1]]
        np.maximum(spot, glyphs, out=spot)

    if style.show_names:
        for cell in cells:
            text(cell.x, cell.y - style.label_mm * mm, cell.lead)
    if style.show_scale:
        text(50 * mm, height - 5 * mm, f"{style.speed:g}mm/s")  # [kit]
        text(100 * mm, height - 5 * mm, f"{style.gain:g}mm/mV")  # [kit]
    if missing:
        text(150 * mm, height - 5 * mm, "not recorded: " + " ".join(missing))
    lines = [part for line in (header or "").splitlines() for part in _wrap(line, size, width - 10 * mm)]
    pitch = 1.3 * size
    room = int((cells[0].y - 5 * mm) / pitch)
    if len(lines) > room:
        raise ParameterError(f"the header takes {len(lines)} lines, the page has room for {room}; shorten it")
    for number, line in enumerate(lines, 1):
        text(5 * mm, number * pitch, line)


def _wrap(line: str, size: float, width: float) -> list[str]:
    """`line` in pieces of at most `width` pixels, broken at spaces where there are any."""
    font, pieces = _font(size), []
    while font.getlength(line) > width and len(line) > 1:
        fit = bisect_right(range(2, len(line)), width, key=lambda n: font.getlength(line[:n])) + 1
        cut = line.rfind(" ", 1, fit + 1)
        cut = fit if cut < 0 else cut
        pieces.append(line[:cut])
        line = line[cut:].lstrip()
    return [*pieces, line]


@lru_cache(maxsize=256)
def _glyphs(line: str, size: float) -> tuple[Bytes, int, int]:
    """A line of text as coverage, uint8 [height, width], and where its corner lies from the text's origin."""
    left, top, right, bottom = (round(edge) for edge in _font(size).getbbox(line, anchor="ls"))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), line, fill=255, font=_font(size), anchor="ls")
    return np.asarray(image), left, top


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    """Aileron Regular, which is part of Pillow: the same glyphs on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what Pillow returns whenever a size is given
    return font


def _rgb(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in color)
    return red, green, blue
