"""Whether leads are where a page draws them, in time and in height."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.layout import Cell, PageStyle, page_cells
from pulse_edge.ecg.leads import LEADS, shown_names
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError


def cell_samples(cell: Cell, rate: float) -> slice:
    """The samples of a lead that a cell shows.

    Args:
        cell: of a page.
        rate: samples per second.
    """
    first = math.ceil(cell.start * rate - 1e-6)
    return slice(first, math.floor(cell.stop * rate + 1e-6) + 1)


def check_placement(recording: Recording, style: PageStyle) -> None:
    """Refuse a recording whose page would mislead.

    Args:
        recording: to draw.
        style: of the page.

    Raises:
        RecordingError: there is nothing to draw; a lead was recorded only at other times than the
            page shows it, while others were; or most of a lead would lie in the rows of others.
    """
    where = recording.source or "recording"
    missing = recording.missing
    if len(missing) == len(LEADS):
        expected = ", ".join(LEADS)
        raise RecordingError(
            f"{where}: nothing to draw in any of the leads {expected}; found: "
            f"{shown_names(recording.leads)}"
        )
    cells: dict[str, list[Cell]] = {}
    for cell in page_cells(style):
        cells.setdefault(cell.lead, []).append(cell)
    reach = style.row_pitch_mm / 2 / style.gain
    for lead, row in zip(recording.leads, recording.signals, strict=True):
        if lead not in cells or lead in missing:
            continue
        parts = [row[cell_samples(cell, recording.rate)] for cell in cells[lead]]
        shown = np.concatenate(parts)
        shown = shown[np.isfinite(shown)]
        if shown.size:
            _check_height(lead, shown, reach, where)
        elif cells[lead][0].start < recording.duration:
            _refuse_time(lead, row, recording.rate, cells[lead][0], where)


def _check_height(lead: str, shown: NDArray[np.float32], reach: float, where: str) -> None:
    """Refuse a lead whose baseline is nearer to another row's line. `reach`: mV."""
    if abs(float(np.median(shown))) <= reach:
        return
    low, high = float(shown.min()), float(shown.max())
    raise RecordingError(
        f"{where}: lead {lead} lies between {low:.4g} and {high:.4g} mV, mostly outside its row of "
        f"-{reach:.2g} to {reach:.2g} mV; remove the lead's offset, or draw it at a lower gain"
    )


def _refuse_time(lead: str, row: NDArray[np.float32], rate: float, cell: Cell, where: str) -> None:
    places = np.flatnonzero(np.isfinite(row))
    raise RecordingError(
        f"{where}: lead {lead} was recorded from {places[0] / rate:.1f} to "
        f"{(places[-1] + 1) / rate:.1f} s, but its place on the page is from {cell.start:.1f} to "
        f"{cell.stop:.1f} s; draw the page with the layout 12x1, which shows all of every lead"
    )
