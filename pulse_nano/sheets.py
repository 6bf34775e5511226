"""Sheets: pages of training whose geometry is not that of `pulse_edge.ecg.layout`.

Other programs place leads, names, pulses and texts elsewhere, at other scales. All lengths here are
pixels of the canvas, which a sheet fills in width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.ecg.layout import Cell
from pulse_edge.ecg.raster import stroke
from pulse_edge.simulation.ecg import LEADS, Ecg

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
WIDTH = 672
FINE = 2  # ink is drawn so much larger, then reduced
COLUMNS = {"3x4": 4, "6x2": 2, "12x1": 1}
STRIPS: tuple[tuple[str, ...], ...] = (
    (),
    ("II",),
    ("II",),
    ("II",),
    ("V1",),
    ("II", "V1"),
    ("V1", "II", "V5"),
)


@dataclass(frozen=True)
class Sheet:
    """Geometry and pen of a page.

    `mm` are pixels a millimetre along x and y, `second` and `mv` pixels a second and a millivolt,
    `origin` a point where two major grid lines cross, `plot` (left, top, right, bottom) what the
    grid covers, `lines` the widths of minor and major grid lines. A cell's `x` and `y` are pixels.
    """

    layout: str
    height: int
    cells: tuple[Cell, ...]
    mm: tuple[float, float]
    second: float
    mv: float
    gain: float
    origin: tuple[float, float]
    plot: tuple[int, int, int, int]
    lines: tuple[float, float]
    pen: float


def sample_sheet(rng: np.random.Generator) -> Sheet:
    """A random sheet. The same generator state gives the same one."""
    layout = str(rng.choice(list(COLUMNS), p=[0.7, 0.2, 0.1]))
    strips = STRIPS[int(rng.integers(len(STRIPS)))] if layout == "3x4" else ()
    if layout == "6x2" and rng.random() < 0.5:
        strips = ("II",)
    aspect = rng.uniform(1.25, 1.55) if rng.random() < 0.7 else rng.uniform(1.05, 1.9)
    height = min(WIDTH, round(WIDTH / aspect))
    left, right = rng.uniform(0.008, 0.1, 2) * WIDTH
    if rng.random() < 0.3:
        left, right = rng.uniform(0.002, 0.03, 2) * WIDTH
    speed = 50 if rng.random() < 0.03 else 25
    # Where nearly all pages show ten seconds, a model measures rates by the page, not by the grid.
    seconds = 10.0 if rng.random() < 0.4 else float(rng.uniform(6.5, 10))
    if speed == 50:
        seconds = 5.0
    columns = COLUMNS[layout]
    gap = float(rng.uniform(2, 12)) if rng.random() < 0.25 else 0.0
    second = (WIDTH - left - right - gap * (columns - 1)) / seconds
    across = second / speed
    down = across * (float(rng.uniform(0.92, 1.08)) if rng.random() < 0.3 else 1.0)
    gain = float(rng.choice([5, 20])) if rng.random() < 0.06 else 10.0
    top = height * rng.uniform(0.02, 0.24)
    bottom = height * rng.uniform(0.01, 0.09)
    rows = len(LEADS) // columns + len(strips)
    pitch = (height - top - bottom) / rows
    cells = _cells(rng, columns, strips, seconds, (left, top), (second, gap, pitch))
    framed = rng.random() < 0.35
    inside = (
        int(left * rng.uniform(0.1, 0.9)),
        int(top * rng.uniform(0.3, 1)),
        int(WIDTH - right * rng.uniform(0.1, 0.9)),
        int(height - bottom * rng.uniform(0.2, 1)),
    )
    return Sheet(
        layout,
        height,
        cells,
        (across, down),
        second,
        gain * down,
        gain,
        (float(rng.uniform(0, 5 * across)), float(rng.uniform(0, 5 * down))),
        inside if framed else (0, 0, WIDTH, height),
        (
            float(rng.uniform(0.25, 0.7)) if rng.random() < 0.85 else 0.0,
            float(rng.uniform(0.35, 1.1)),
        ),
        float(rng.uniform(0.55, 1.9)),
    )


def _cells(
    rng: np.random.Generator,
    columns: int,
    strips: tuple[str, ...],
    seconds: float,
    corner: tuple[float, float],
    pitches: tuple[float, float, float],
) -> tuple[Cell, ...]:
    """Leads column by column, then the strips below them.

    Time runs on from column to column, or begins again in each.
    """
    (left, top), (second, gap, pitch) = corner, pitches
    rows = len(LEADS) // columns
    each = seconds / columns
    again = columns > 1 and rng.random() < 0.25
    low = float(rng.uniform(0.42, 0.62))  # of the zero line within its row
    cells = []
    for number, lead in enumerate(LEADS):
        column, row = divmod(number, rows)
        start = 0.0 if again else column * each
        x = left + column * (each * second + gap)
        cells.append(Cell(lead, start, start + each, x, top + (row + low) * pitch, column))
    for number, lead in enumerate(strips, rows):
        cells.append(Cell(lead, 0.0, seconds, left, top + (number + low) * pitch, 0))
    return tuple(cells)


def draw_sheet(ecg: Ecg, sheet: Sheet, rng: np.random.Generator) -> Image.Image:
    """A recording's ink on a sheet: mode L, 255 = ink, `FINE` times the canvas."""
    ink = np.zeros((sheet.height * FINE, WIDTH * FINE), np.uint8)
    traces = np.concatenate([_trace(ecg, cell, sheet) for cell in sheet.cells])
    stroke(ink, (traces * FINE).astype(np.float32), sheet.pen * FINE)
    marks = _pulses(sheet, rng) + _separators(sheet, rng) + _frames(sheet, rng)
    if marks:
        stroke(ink, np.array(marks, np.float32) * FINE, sheet.pen * FINE * rng.uniform(0.8, 1.6))
    image = Image.fromarray(ink)
    _write(image, sheet, rng)
    return image


def _trace(ecg: Ecg, cell: Cell, sheet: Sheet) -> NDArray[np.float64]:
    """Line segments [n, 4] of a cell."""
    part = slice(round(cell.start * ecg.hz), round(cell.stop * ecg.hz) + 1)
    volts = ecg.signal[LEADS.index(cell.lead), part]
    x = cell.x + np.arange(len(volts)) * (sheet.second / ecg.hz)
    y = np.clip(cell.y - volts * sheet.mv, -WIDTH, 2 * WIDTH)
    points = np.stack([x, y], axis=1)
    return np.hstack([points[:-1], points[1:]])


def _pulses(sheet: Sheet, rng: np.random.Generator) -> list[tuple[float, ...]]:
    """Calibration pulses: none, one a row before the traces or after them, or a single one."""
    place = str(rng.choice(["none", "rows", "after", "single"], p=[0.3, 0.45, 0.15, 0.1]))
    if place == "none":
        return []
    width, high = sheet.second * rng.uniform(0.08, 0.2), sheet.mv
    rows = [cell for cell in sheet.cells if cell.column == 0]
    if place == "single":
        rows = rows[-1:]
    out: list[tuple[float, ...]] = []
    for cell in rows:
        x = cell.x - width if place != "after" else WIDTH - width * 1.2
        y = cell.y
        foot = width * 0.2
        out += [
            (x - foot, y, x, y),
            (x, y, x, y - high),
            (x, y - high, x + width, y - high),
            (x + width, y - high, x + width, y),
        ]
    return out


def _separators(sheet: Sheet, rng: np.random.Generator) -> list[tuple[float, ...]]:
    kind = str(rng.choice(["none", "bars", "ticks"], p=[0.45, 0.35, 0.2]))
    if kind == "none":
        return []
    reach = rng.uniform(2, 7) * sheet.mm[1]
    out: list[tuple[float, ...]] = []
    for cell in sheet.cells:
        if cell.column and kind == "bars":
            out.append((cell.x, cell.y - reach, cell.x, cell.y + reach))
        elif cell.column:
            out.append((cell.x, cell.y - reach - 8, cell.x, cell.y - reach))
            out.append((cell.x, cell.y + reach, cell.x, cell.y + reach + 8))
    return out


def _frames(sheet: Sheet, rng: np.random.Generator) -> list[tuple[float, ...]]:
    out: list[tuple[float, ...]] = []
    left, top, right, bottom = sheet.plot
    if rng.random() < 0.25:
        out += [(left, top, right, top), (right, top, right, bottom)]
        out += [(right, bottom, left, bottom), (left, bottom, left, top)]
    if rng.random() < 0.15:
        y = sheet.cells[0].y - 12 * sheet.mm[1]
        out.append((0, y, WIDTH, y))
    return out


WORDS = tuple(
    word
    for line in (
        "ID Name Male Female years Vent. rate PR interval QRS duration QT/QTc P-R-T axes bpm ms",
        "Unconfirmed Hospital Clinic Ward Room Technician Referred by Date Time Page of 12-lead",
        "25mm/s 10mm/mV 0.05-150Hz 50Hz 60 Hz 40 Hz filter Simulated recording Test Comments ECG",
    )
    for word in line.split()
)


def _write(image: Image.Image, sheet: Sheet, rng: np.random.Generator) -> None:
    """Names of leads, header and footer."""
    size = float(rng.uniform(6.5, 13)) * FINE
    bold = int(rng.random() < 0.3)
    place = str(rng.choice(["above", "below", "left", "inside"], p=[0.5, 0.15, 0.2, 0.15]))
    away = float(rng.uniform(4, 9)) * sheet.mm[1]
    named = rng.random() < 0.95
    for cell in sheet.cells:
        x, y = cell.x, cell.y - away
        if place == "below":
            y = cell.y + away
        elif place == "left":
            x = cell.x - size / FINE * (0.8 + 0.3 * len(cell.lead))
            y = cell.y - 0.2 * away
        elif place == "inside":
            x = cell.x + 3 * sheet.mm[0]
        if named:
            _text(image, x, y, cell.lead, size, bold)
    _blocks(image, sheet, rng)


def _blocks(image: Image.Image, sheet: Sheet, rng: np.random.Generator) -> None:
    """Lines of words and numbers over the traces and under them, in columns."""
    room = sheet.cells[0].y - 9 * sheet.mm[1]
    size = float(rng.uniform(5, 11)) * FINE
    pitch = size / FINE * 1.3
    for column in range(int(rng.integers(0, 4))):
        x = WIDTH * (0.02 + column * rng.uniform(0.25, 0.34))
        lines = min(int(rng.integers(1, 7)), int(max(0, room / pitch)))
        for line in range(lines):
            count = int(rng.integers(1, 5))
            words = [str(rng.choice(WORDS)) for _ in range(count)]
            words.append(str(rng.integers(1, 9999)))
            _text(image, x, 3 + (line + 0.8) * pitch, " ".join(words), size, 0)
    if rng.random() < 0.6:
        x = rng.uniform(0.02, 0.6) * WIDTH
        words = [str(rng.choice(WORDS)) for _ in range(int(rng.integers(2, 8)))]
        _text(image, x, sheet.height - 3, " ".join(words), size, 0)


def _text(image: Image.Image, x: float, y: float, text: str, size: float, bold: int) -> None:
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(image)
    draw.text((x * FINE, y * FINE), text, fill=255, font=font, anchor="ls", stroke_width=bold)


def sheet_profiles(sheet: Sheet, side: int) -> dict[str, F32]:
    """Profiles for `Page.grid`, see `shards.grid_profiles`.

    Args:
        sheet: whose grid.
        side: of the base view.
    """
    out: dict[str, F32] = {}
    for number, (axis, length) in enumerate((("x", WIDTH), ("y", sheet.height))):
        for where, pixels in (("canvas", length), ("base", side)):
            scale = pixels / length
            covers = [
                _cover(
                    pixels,
                    step * sheet.mm[number] * scale,
                    sheet.origin[number] * scale,
                    width * scale,
                )
                for step, width in ((1, sheet.lines[0]), (5, sheet.lines[1]))
            ]
            free_minor, free_major = 1 - covers[0], 1 - covers[1]
            out[f"{axis} major {where}"] = free_major
            out[f"{axis} all {where}"] = free_minor * free_major
    return out


def _cover(pixels: int, period: float, origin: float, width: float) -> F32:
    """Share of each pixel that lines of a period cover."""

    def covered(edge: NDArray[np.float64]) -> NDArray[np.float64]:
        turns = np.floor((edge - origin) / period)
        rest: NDArray[np.float64] = turns * width + np.minimum(
            (edge - origin) - turns * period, width
        )
        return rest

    edges = np.arange(pixels + 1, dtype=np.float64)
    return np.diff(covered(edges)).astype(np.float32)
