"""Where leads stand on a page, and how large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pulse_edge.ecg.leads import LEADS, canonical_lead
from pulse_edge.errors import ParameterError

Color = tuple[float, float, float]

MM_PER_INCH = 25.4
PT_PER_INCH = 72
TRACE_MM = 250.0  # width of all columns: 10 s at 25 mm/s, 5 s at 50 mm/s


class Layout(NamedTuple):
    """Leads of each column, top to bottom, and the leads drawn over the full width below them."""

    columns: tuple[tuple[str, ...], ...]
    strips: tuple[str, ...]


LAYOUTS = {
    "3x4": Layout((LEADS[0:3], LEADS[3:6], LEADS[6:9], LEADS[9:12]), ("II",)),
    "6x2": Layout((LEADS[0:6], LEADS[6:12]), ()),
    "12x1": Layout((LEADS,), ()),
}
# Rhythm strips by their number.
STRIPS: dict[int, tuple[str, ...]] = {0: (), 1: ("II",), 3: ("V1", "II", "V5")}
SPEEDS = (25, 50)  # mm/s
GAINS = (5, 10, 20)  # mm/mV
_MOST_STRIPS = 4


# Least and largest value of a style's field.
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
    """How a page looks; by default like PULSE's training pages.

    `*_in` are inches, `*_mm` millimetres, `*_pt` points (1/72 in); colours are red, green, blue in
    0..1. Raises `ParameterError` for illegal values.
    """

    layout: str = "3x4"
    speed: float = 25  # mm/s
    gain: float = 10  # mm/mV
    strips: tuple[str, ...] | None = None  # leads drawn in full at the bottom; None: the layout's
    dpi: float = 200
    width_in: float = 11
    height_in: float = 8.5
    row_mm: float | None = None  # distance between rows; None: height / (rows + strips + 2) [kit]
    label_mm: float = -7  # base line of lead names over the lead's zero line; below it if < 0 [kit]
    paper: Color = (1, 1, 1)
    ink: Color = (0, 0, 0)
    grid_major: Color = (1, 0, 0)  # every 5 mm [kit]
    grid_minor: Color = (0.996, 0.875, 0.859)  # every 1 mm [kit]
    grid_pt: float = 0.5  # [kit]
    trace_pt: float = 0.75  # [kit]; the calibration pulse is 1.5, separators are 3 times as wide
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
                expected = ", ".join(map(str, legal))
                raise ParameterError(f"{name} is {value!r}; expected one of {expected}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "row_mm" and value is None:
                continue
            if not (isinstance(value, int | float) and low <= value <= high):
                raise ParameterError(f"{name} is {value!r}; expected {low:g} to {high:g}")
        for name in ("paper", "ink", "grid_major", "grid_minor"):
            value = getattr(self, name)
            if not (
                isinstance(value, tuple) and len(value) == 3 and all(0 <= x <= 1 for x in value)
            ):
                raise ParameterError(
                    f"{name} is {value!r}; expected (red, green, blue), each 0 to 1"
                )
        strips = self.strips
        if strips is not None and not (
            isinstance(strips, tuple)
            and len(strips) <= _MOST_STRIPS
            and all(lead in LEADS for lead in strips)
        ):
            expected = ", ".join(LEADS)
            raise ParameterError(
                f"strips is {strips!r}; expected a tuple of up to {_MOST_STRIPS} of {expected}"
            )
        if page_cells(self)[0].y < 10 * self.px_per_mm:
            raise ParameterError(
                f"row_mm is {self.row_mm}: too much for a page {self.height_in} in high"
            )

    @property
    def size(self) -> tuple[int, int]:
        """Width, height in pixels."""
        return round(self.width_in * self.dpi), round(self.height_in * self.dpi)

    @property
    def row_pitch_mm(self) -> float:
        """Distance between rows in millimetres."""
        columns, strips = LAYOUTS[self.layout]
        strips = strips if self.strips is None else self.strips
        height = self.height_in * MM_PER_INCH
        return self.row_mm or height / (len(columns[0]) + len(strips) + 2)

    @property
    def px_per_mm(self) -> float:
        """Pixels a millimetre of paper."""
        return self.dpi / MM_PER_INCH

    @property
    def px_per_second(self) -> float:
        """Pixels a second of the recording."""
        return self.speed * self.px_per_mm

    @property
    def px_per_mv(self) -> float:
        """Pixels a millivolt."""
        return self.gain * self.px_per_mm

    def px(self, points: float) -> float:
        """Points to pixels."""
        return points * self.dpi / PT_PER_INCH


class Cell(NamedTuple):
    """A stretch of one lead on the page, from `start` to `stop` in seconds.

    (`x`, `y`) is the pixel of `start` at 0 mV. Time t and amplitude v (mV) lie at
    (x + (t - start) * style.px_per_second, y - v * style.px_per_mv).
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
    width = style.width_in * MM_PER_INCH
    rows = len(columns[0])
    pitch = style.row_pitch_mm
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
    for number, lead in enumerate(strips):
        cells.append(cell(lead, 0, TRACE_MM, (len(strips) - 0.5 - number) * pitch + 3))
    return tuple(cells)


def parse_strips(text: str) -> tuple[str, ...]:
    """Leads of the rhythm strips that a command line asks for.

    Args:
        text: how many, a key of `STRIPS`; or up to four leads, as "V1,II,V5".

    Raises:
        ParameterError: it is neither.
    """
    if text.strip().isascii() and text.strip().isdigit() and int(text) in STRIPS:
        return STRIPS[int(text)]
    leads = tuple(canonical_lead(name) for name in text.split(","))
    if len(leads) > _MOST_STRIPS or not all(lead in LEADS for lead in leads):
        numbers = ", ".join(map(str, STRIPS))
        raise ParameterError(
            f"strips is {text!r:.40}; expected {numbers}, or up to {_MOST_STRIPS} of "
            f"{', '.join(LEADS)} with commas between them"
        )
    return leads


def parse_layouts(text: str) -> tuple[str, ...]:
    """Layouts of a command line.

    Args:
        text: at least two, with commas between them.

    Raises:
        ParameterError: it is no such list.
    """
    layouts = tuple(part.strip() for part in text.split(","))
    if len(layouts) < 2 or len(set(layouts)) < len(layouts) or set(layouts) - set(LAYOUTS):
        raise ParameterError(
            f"layouts is {text!r:.60}; expected at least two of {', '.join(LAYOUTS)}, each once, "
            "with commas between them"
        )
    return layouts


PULSE_STYLE = PageStyle()
