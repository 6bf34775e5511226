"""Where leads are drawn: which samples a cell shows, and leads that would lie elsewhere."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from pulse_edge.ecg.layout import Cell, PageStyle
from pulse_edge.ecg.leads import LEADS
from pulse_edge.ecg.placement import cell_samples, check_placement
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

RATE = 100.0


@pytest.mark.parametrize(
    ("start", "stop", "rate", "first", "last"),
    [
        (0, 10, 500, 0, 5000),
        (2.5, 5, 500, 1250, 2500),
        (2.5, 5, 1, 3, 5),
        (2.5, 5, 333, 833, 1665),  # 832.5 is not yet there
        (0.1, 0.3, 10, 1, 3),  # 0.1 * 3 is 0.30000000000000004
        (1, 2, 100 + 0.9e-6, 100, 200),  # to a millionth of a sample
        (1, 2, 100 + 1.2e-6, 101, 200),
        (1, 2, 100 - 0.45e-6, 100, 200),
        (1, 2, 100 - 0.6e-6, 100, 199),
    ],
)
def test_a_cell_shows_the_samples_from_its_start_to_its_stop(
    start: float, stop: float, rate: float, first: int, last: int
) -> None:
    assert cell_samples(Cell("I", start, stop, 0, 0, 0), rate) == slice(first, last + 1)


def recording(**rows: np.ndarray) -> Recording:
    """Beats in 12 leads; `rows` are what some of them hold instead."""
    beat = np.exp(-(((np.arange(1000) % 80 - 30) / 3) ** 2))
    signals = np.stack([rows.get(lead, beat) for lead in LEADS])
    return Recording(signals, RATE, LEADS, source="page.dcm", tolerance=math.inf)


def between(first: int, last: int) -> np.ndarray:
    row = np.full(1000, np.nan)
    row[first : last + 1] = np.arange(last + 1 - first) % 80 / 80
    return row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (between(0, 499), None),  # of V1's place, which begins at 5 s, nothing
        (between(0, 500), ""),
        (between(750, 999), ""),  # the sample at 7.5 s ends its line
        (between(751, 999), "7.5 to 10.0 s"),
        (between(20, 130), "0.2 to 1.3 s"),
    ],
)
def test_a_lead_must_have_been_recorded_when_its_place_is(
    row: np.ndarray, message: str | None
) -> None:
    record = recording(V1=row)
    if message == "":
        check_placement(record, PageStyle())
        return
    expected = message or "0.0 to 5.0 s"
    with pytest.raises(RecordingError) as caught:
        check_placement(record, PageStyle())
    assert str(caught.value) == (
        f"page.dcm: lead V1 was recorded from {expected}, but its place on the page is from 5.0 to "
        "7.5 s; draw the page with the layout 12x1, which shows all of every lead"
    )
    check_placement(record, PageStyle(layout="12x1"))


def test_a_short_recording_leaves_later_places_blank() -> None:
    """A 3x4 page shows V1 from 5 s on; a recording may end there."""
    beat = np.exp(-(((np.arange(500) % 80 - 30) / 3) ** 2))
    check_placement(Recording(np.tile(beat, (12, 1)), RATE, LEADS), PageStyle())


def test_a_strip_shows_a_lead_whose_column_is_blank() -> None:
    record = recording(II=between(500, 999))
    check_placement(record, PageStyle())
    with pytest.raises(RecordingError, match=r"lead II was recorded from 5.0 to 10.0 s"):
        check_placement(record, PageStyle(strips=("V1",)))


@pytest.mark.parametrize(("gain", "reach"), [(5, 2.0), (10, 1.0), (20, 0.5)])
def test_a_lead_may_lie_half_a_row_off(gain: float, reach: float) -> None:
    """Rows 20 mm apart: half of that is 2 mV at 5 mm/mV."""
    style = PageStyle(gain=gain, row_mm=20)
    for sign in (1, -1):
        check_placement(recording(aVL=np.full(1000, sign * reach)), style)
        outside = np.full(1000, sign * (reach + 0.01))
        outside[300] = 0
        with pytest.raises(RecordingError) as caught:
            check_placement(recording(aVL=outside), style)
        low, high = sorted((0, sign * (reach + 0.01)))
        assert str(caught.value) == (
            f"page.dcm: lead aVL lies between {low:.4g} and {high:.4g} mV, mostly outside its row "
            f"of -{reach:g} to {reach:g} mV; remove the lead's offset, or draw it at a lower gain"
        )


def test_only_what_is_drawn_decides_the_height() -> None:
    row = np.full(1000, 3.0)
    row[500:751] = 0.5
    check_placement(recording(V1=row), PageStyle())


def test_nothing_to_draw_names_what_was_found() -> None:
    zeros = np.zeros((2, 100), np.float32)
    foreign = Recording(zeros, RATE, ("V7", "X"), source="f.dcm")
    expected = f"f.dcm: nothing to draw in any of the leads {', '.join(LEADS)}; found: V7, X"
    with pytest.raises(RecordingError, match=f"^{re.escape(expected)}$"):
        check_placement(foreign, PageStyle())
    alone = Recording(zeros, RATE, ("V7", "I"))
    check_placement(alone, PageStyle())
