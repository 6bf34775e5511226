"""Rows that are moved apart: no trace meets another row's, and nothing moves without need."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pulse_edge.ecg.drawing import draw_ink
from pulse_edge.ecg.layout import GAINS, LAYOUTS, SPEEDS, PageStyle, page_cells
from pulse_edge.ecg.leads import LEADS
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.spacing import Arrangement, arrange

RATE = 250
DPI = 60


def beats(**heights: tuple[float, float]) -> Recording:
    """In each lead an R wave and then an S wave, mV; 0.3 and -0.3 where nothing is said."""
    time = np.arange(10 * RATE) / RATE % 0.8

    def wave(up: float, down: float) -> np.ndarray:
        r = up * np.exp(-(((time - 0.30) / 0.012) ** 2))
        return r + down * np.exp(-(((time - 0.36) / 0.012) ** 2))

    rows = [wave(*heights.get(lead, (0.3, -0.3))) for lead in LEADS]
    return Recording(np.array(rows, np.float32), RATE, LEADS, tolerance=math.inf)


LARGE = beats(V2=(0.5, -2.0), V3=(1.2, -2.2), V4=(2.0, -1.5), V5=(2.2, -0.6), V6=(1.8, -0.3))


def alone(recording: Recording, arrangement: Arrangement, row: float) -> np.ndarray:
    """Ink of the leads on one line of the page, as the whole page draws them."""
    style = arrangement.style
    ink = np.zeros((style.size[1], style.size[0]), bool)
    for cell in arrangement.cells:
        if cell.y != row:
            continue
        lead = recording.signals[LEADS.index(cell.lead)]
        first = math.ceil(cell.start * RATE - 1e-6)
        values = lead[first : math.floor(cell.stop * RATE + 1e-6) + 1]
        x = cell.x + ((first + np.arange(len(values))) / RATE - cell.start) * style.px_per_second
        y = cell.y - values * style.px_per_mv
        steps = np.linspace(0, 1, 20)
        along = x[:-1, None] + np.diff(x)[:, None] * steps
        across = y[:-1, None] + np.diff(y)[:, None] * steps
        inside = (across >= 0) & (across < ink.shape[0]) & (along < ink.shape[1])
        ink[across[inside].astype(int), along[inside].astype(int)] = True
    return ink


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("gain", GAINS)
def test_no_trace_meets_another_rows(layout: str, speed: int, gain: int) -> None:
    style = PageStyle(layout=layout, speed=speed, gain=gain, dpi=DPI)
    arrangement = arrange(LARGE, style)
    rows = sorted({cell.y for cell in arrangement.cells})
    inks = [alone(LARGE, arrangement, row) for row in rows]
    for upper, lower in pairwise(inks):
        assert not (upper & lower).any()
        both = upper.any(axis=0) & lower.any(axis=0)
        lowest = upper.shape[0] - 1 - np.argmax(upper[::-1], axis=0)
        assert (lowest[both] < np.argmax(lower, axis=0)[both]).all()
    assert inks[0][0].sum() == 0  # nothing leaves the page
    assert inks[-1][-1].sum() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("gain", [5, 10])
def test_rows_with_room_stay_where_they_are(layout: str, speed: int, gain: int) -> None:
    style = PageStyle(layout=layout, speed=speed, gain=gain)
    arrangement = arrange(beats(), style)
    assert arrangement == Arrangement(style, page_cells(style), False, ())


def test_rows_that_need_room_move_and_the_others_do_not() -> None:
    style = PageStyle(layout="12x1")
    usual = {cell.lead: cell.y for cell in page_cells(style)}
    arrangement = arrange(beats(V3=(0.3, -2.0), V4=(1.5, -0.3)), style)
    moved = {cell.lead for cell in arrangement.cells if cell.y != usual[cell.lead]}
    assert moved >= {"V3", "V4"}
    assert not moved & {"I", "II", "III"}
    assert arrangement.moved
    assert arrangement.style == style
    assert arrangement.notes == (
        "Rows are not evenly spaced: the amplitudes of V3, V4 need more room.",
    )


def test_lines_stay_on_the_grid() -> None:
    style = PageStyle(layout="12x1")
    for cell in arrange(LARGE, style).cells:
        millimetres = (style.size[1] - cell.y) / style.px_per_mm
        assert millimetres == pytest.approx(round(millimetres), abs=1e-6)


def test_a_lower_gain_is_taken_and_said_where_the_page_has_no_room() -> None:
    large = beats(**dict.fromkeys(LEADS, (1.5, -1.5)))
    arrangement = arrange(large, PageStyle(layout="12x1", gain=20))
    assert arrangement.style == PageStyle(layout="12x1", gain=5)
    assert arrangement.notes[0].startswith("Drawn at 5 mm/mV, not 20: the page has no room for ")
    page = draw_ink(large, PageStyle(layout="12x1", gain=20, dpi=DPI))
    assert page.tobytes() == draw_ink(large, PageStyle(layout="12x1", gain=5, dpi=DPI)).tobytes()


def test_what_fits_at_no_gain_stays_as_asked_and_is_said() -> None:
    large = beats(**dict.fromkeys(LEADS, (4.5, -4.5)))
    style = PageStyle(layout="12x1", gain=10)
    arrangement = arrange(large, style)
    assert arrangement.cells == page_cells(style)
    assert arrangement.notes[0].startswith("Traces overlap: the page has no room for ")


def test_a_spike_moves_nothing() -> None:
    record = beats()
    signals = record.signals.copy()
    signals[LEADS.index("V3"), 500:502] = -4.0
    spiked = replace(record, signals=signals, notes=())
    assert not arrange(spiked, PageStyle(layout="12x1")).moved


def test_a_header_keeps_its_line_above_the_first_row() -> None:
    tall = beats(I=(1.7, -0.3))
    style = PageStyle(layout="12x1")
    plain, headed = arrange(tall, style), arrange(tall, style, header=True)
    assert headed.cells[0].y > plain.cells[0].y
    draw_ink(tall, style, "one line")  # not refused


def test_a_distance_that_was_asked_for_is_kept() -> None:
    style = PageStyle(layout="12x1", row_mm=14)
    assert arrange(LARGE, style).cells == page_cells(style)


def test_pulses_that_would_meet_are_left_out() -> None:
    """Rows 16 mm apart at 20 mm/mV: every other row has its pulse."""
    flat = Recording(np.zeros((12, 2500), np.float32), RATE, LEADS)
    style = PageStyle(layout="12x1", gain=20, row_mm=15, show_names=False, show_scale=False)
    ink = np.asarray(draw_ink(flat, style))
    cells = page_cells(style)
    column = round(cells[0].x - 0.1 * style.px_per_second)  # the middle of the pulses
    tops = [round(cell.y - style.px_per_mv) for cell in cells]
    drawn = [bool(ink[max(0, top) : top + 2, column].any()) and top > 0 for top in tops]
    assert [n for n, there in enumerate(drawn) if there] == [
        n for n in range(12) if n % 2 == 1
    ] or [n for n, there in enumerate(drawn) if there] == [
        n for n in range(12) if n % 2 == 0 and tops[n] > 0
    ]
