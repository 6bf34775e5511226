"""Rows of a page moved apart, so that no trace runs through another row's.

The usual places stay wherever the traces leave them clear. Otherwise rows move as little as they
can. If the page has not enough room, it is drawn at the next lower gain, which its scale and its
notes say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.layout import (
    GAINS,
    MM_PER_INCH,
    PT_PER_INCH,
    TRACE_MM,
    Cell,
    PageStyle,
    page_cells,
)
from pulse_edge.ecg.placement import cell_samples
from pulse_edge.ecg.recording import Recording

Heights = NDArray[np.float64]

GAP_MM = 1.0  # least distance of two rows' traces
_LEAST_ROW_MM = 7.0  # room for a lead's name
_SPIKE_MM = 2  # what stands out alone, in so few millimetres of the paper, is no beat
_ASIDE_S = 0.04  # how far beside each other two rows' traces may not meet, either
_SCALES_MM = 8.5  # height of the scales over the lower edge
_HEADER_SIZES = 1.6  # height of a header's first line, with what hangs below it, in text sizes


@dataclass(frozen=True)
class Arrangement:
    """How a recording lies on a page.

    Attributes:
        style: as drawn. Its gain may be lower than the one that was asked for.
        cells: where each lead stands.
        moved: whether rows are not in their usual places.
        notes: what was changed, a sentence each.
    """

    style: PageStyle
    cells: tuple[Cell, ...]
    moved: bool
    notes: tuple[str, ...]


class _Row(NamedTuple):
    """Cells on one line, and how far their traces reach from it, in each millimetre of its width.

    Heights are millimetres; minus infinity where nothing is drawn.
    """

    y: float
    cells: list[Cell]
    above: Heights
    below: Heights


def arrange(recording: Recording, style: PageStyle, header: bool = False) -> Arrangement:
    """Where the leads of a recording stand on its page.

    Args:
        recording: what is drawn.
        style: as asked for. With `row_mm` the rows stay at that distance.
        header: whether text stands above the first row.
    """
    cells = page_cells(style)
    if style.row_mm is not None:
        return Arrangement(style, cells, False, ())
    crowded: list[str] = []
    for gain in sorted((gain for gain in GAINS if gain <= style.gain), reverse=True):
        drawn = replace(style, gain=gain)
        rows = _page_rows(recording, drawn)
        usual = _usual_distances(rows, drawn)
        needed = _needed_distances(rows, drawn, header)
        needed[-1] = max(needed[-1], min(usual[-1], needed[-1] + _SCALES_MM))
        crowded = crowded or _crowded(rows, usual, needed)
        if (needed <= usual).all():
            return Arrangement(
                drawn, cells, False, tuple(_moved_notes(style, drawn, crowded, False))
            )
        lines = _line_places(usual, needed)
        if lines is not None:
            moved = _moved(rows, lines, drawn)
            return Arrangement(drawn, moved, True, tuple(_moved_notes(style, drawn, crowded, True)))
    return Arrangement(style, cells, False, tuple(_moved_notes(style, style, crowded, False)))


def _page_rows(recording: Recording, style: PageStyle) -> list[_Row]:
    """Rows from the top of the page to its bottom."""
    rows: dict[float, _Row] = {}
    width = math.ceil(TRACE_MM) + 1
    for cell in page_cells(style):
        if cell.y not in rows:
            nothing = np.full(width, -np.inf)
            rows[cell.y] = _Row(cell.y, [], nothing, nothing.copy())
        row = rows[cell.y]
        row.cells.append(cell)
        if cell.lead not in recording.leads:
            continue
        samples = cell_samples(cell, recording.rate)
        volts = recording.signals[recording.leads.index(cell.lead), samples].astype(np.float64)
        time = (samples.start + np.arange(len(volts))) / recording.rate - cell.start
        left = (cell.x - row.cells[0].x) / style.px_per_mm
        place = np.clip(left + time * style.speed, 0, width - 1).astype(int)
        good = np.isfinite(volts)
        np.maximum.at(row.above, place[good], volts[good] * style.gain)
        np.maximum.at(row.below, place[good], -volts[good] * style.gain)
    return [rows[y] for y in sorted(rows)]


def _trace_height(heights: Heights, aside: int = 0) -> float:
    """How high a trace stands, apart from one spike that is narrower than a beat.

    Args:
        heights: in each millimetre.
        aside: by how many millimetres `_widened` has widened them on either side.
    """
    if not np.isfinite(heights).any():
        return 0.0
    peak = int(np.argmax(heights))
    wide = aside + _SPIKE_MM // 2
    around = slice(max(0, peak - wide), peak + wide + 1)
    rest = float(np.delete(heights, around).max(initial=-np.inf))
    higher = int((heights[around] > rest).sum())
    spike = math.isfinite(rest) and higher <= 2 * aside + _SPIKE_MM
    return rest if spike else float(heights[peak])


def _usual_distances(rows: list[_Row], style: PageStyle) -> Heights:
    """Millimetres from the page's upper edge over the rows to its lower edge."""
    lines = [0.0, *(row.y for row in rows), style.height_in * style.dpi]
    return np.diff(lines) / style.px_per_mm


def _needed_distances(rows: list[_Row], style: PageStyle, header: bool) -> Heights:
    """The least of these distances at which no trace meets another row's, or an edge."""
    line = _HEADER_SIZES * style.text_pt * MM_PER_INCH / PT_PER_INCH if header else 0.0
    aside = max(1, round(_ASIDE_S * style.speed))
    between = [
        max(
            _LEAST_ROW_MM, _trace_height(upper.below + _widened(lower.above, aside), aside) + GAP_MM
        )
        for upper, lower in pairwise(rows)
    ]
    pulse = style.gain if style.show_calibration else 0.0
    top = max(_trace_height(rows[0].above), pulse) + GAP_MM + line
    bottom = _trace_height(rows[-1].below) + GAP_MM
    return np.array([top, *between, bottom])


def _widened(heights: Heights, aside: int = 1) -> Heights:
    """The highest of each millimetre and the `aside` ones on either side."""
    padded = np.pad(heights, aside, constant_values=-np.inf)
    highest: Heights = np.lib.stride_tricks.sliding_window_view(padded, 2 * aside + 1).max(axis=1)
    return highest


def _line_places(usual: Heights, needed: Heights) -> Heights | None:
    """Where the rows' lines lie, in millimetres from the upper edge.

    Of all places that keep the needed distances they are the nearest to the usual ones, by the sum
    of squares. Less what is needed above it, each line's place must not fall from row to row, so
    that the answer is an isotonic regression, clipped to the page.

    Args:
        usual: distances from the upper edge over the rows to the lower edge.
        needed: the least of these distances.

    Returns:
        A place for each row; None if the page has not enough room.
    """
    above = np.concatenate([[0.0], np.cumsum(needed[1:-1])])
    first = needed[0]
    last = usual.sum() - needed[-1] - above[-1]
    if first > last:
        return None
    lines: Heights = np.cumsum(usual)[:-1]
    return above + np.clip(_isotonic(lines - above), first, last)


def _isotonic(values: Heights) -> Heights:
    """The nearest sequence that does not fall, by pooling neighbours that do."""
    pools: list[tuple[float, int]] = []  # mean, values
    for value in values:
        mean, count = float(value), 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean = (before * many + mean * count) / (many + count)
            count += many
        pools.append((mean, count))
    return np.repeat([mean for mean, _ in pools], [count for _, count in pools])


def _moved(rows: list[_Row], lines: Heights, style: PageStyle) -> tuple[Cell, ...]:
    """The cells on these lines, each a whole number of millimetres above the lower edge."""
    height = style.height_in * MM_PER_INCH
    places = {
        row.y: style.size[1] - round(height - line) * style.px_per_mm
        for row, line in zip(rows, lines, strict=True)
    }
    return tuple(cell._replace(y=places[cell.y]) for cell in page_cells(style))


def _crowded(rows: list[_Row], usual: Heights, needed: Heights) -> list[str]:
    """Leads whose traces would meet the next row's, or an edge, in the usual places."""
    leads: list[str] = []
    edges = [None, *rows, None]
    for upper, lower, room, need in zip(edges, edges[1:], usual, needed, strict=False):
        if need <= room:
            continue
        if upper is not None and lower is not None:
            place = int(np.argmax(upper.below + _widened(lower.above)))
            leads += [_lead_at(upper, place), _lead_at(lower, place)]
        elif lower is not None:
            leads.append(_lead_at(lower, int(np.argmax(lower.above))))
        elif upper is not None:
            leads.append(_lead_at(upper, int(np.argmax(upper.below))))
    return list(dict.fromkeys(leads))


def _lead_at(row: _Row, place: int) -> str:
    """The lead that a row shows at a millimetre of its width."""
    column = int(place / TRACE_MM * len(row.cells))
    return row.cells[min(column, len(row.cells) - 1)].lead


def _moved_notes(
    asked: PageStyle, drawn: PageStyle, leads: list[str], moved: bool
) -> Iterator[str]:
    names = ", ".join(leads)
    if drawn.gain != asked.gain:
        yield (
            f"Drawn at {drawn.gain:g} mm/mV, not {asked.gain:g}: the page has no room for the "
            f"amplitudes of {names}."
        )
    elif moved:
        yield f"Rows are not evenly spaced: the amplitudes of {names} need more room."
    elif leads:
        yield f"Traces overlap: the page has no room for the amplitudes of {names}."
