"""Calibration pulses: cut at a recording's ends, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.ecg.calibration import without_calibration

NAMES = ("I", "II", "III", "V1")


def beats(rate: float, seconds: float = 11) -> np.ndarray:
    phase = np.arange(round(seconds * rate)) / rate % 0.8
    beat = np.exp(-(((phase - 0.3) / 0.015) ** 2)) + 0.2 * np.exp(-(((phase - 0.55) / 0.05) ** 2))
    return np.outer([0.5, 1.0, 0.5, -1.0], beat).astype(np.float32)


@pytest.mark.parametrize("rate", [100, 250, 500, 1000])
@pytest.mark.parametrize("width", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("height", [0.95, 1.0, 1.05])
def test_a_pulse_at_the_end_is_cut(rate: int, width: float, height: float) -> None:
    """As in Philips files: after the ECG, in every lead."""
    rows = beats(rate)
    first, last = round(10.2 * rate), round((10.2 + width) * rate)
    rows[:, first - rate // 50 :] = 0
    rows[:, first:last] = height
    cut, notes = without_calibration(rows, rate, NAMES)
    assert cut.shape[1] == first
    assert np.array_equal(cut, rows[:, :first])
    expected = f"in samples {first:,} to {rows.shape[1] - 1:,}: I, II, III, V1."
    assert notes == (f"Calibration pulse cut, {expected}",)


def test_a_pulse_at_the_beginning_is_cut() -> None:
    rows = beats(500)
    rows[:, :200] = 0
    rows[:, 50:150] = 1
    cut, notes = without_calibration(rows, 500, NAMES)
    assert np.array_equal(cut, rows[:, 150:])
    assert notes == ("Calibration pulse cut, in samples 0 to 149: I, II, III, V1.",)


def test_a_pulse_that_begins_the_recording_is_cut() -> None:
    rows = beats(500)
    rows[:, :150] = 0
    rows[:, :100] = 1
    assert without_calibration(rows, 500, NAMES)[0].shape == (4, 5400)


def test_a_pulse_in_some_leads_leaves_a_blank() -> None:
    rows = beats(500)
    rows[1:3, :200] = 0
    rows[1:3, 50:150] = 1
    cut, notes = without_calibration(rows, 500, NAMES)
    assert cut.shape == rows.shape
    assert np.isnan(cut).sum(axis=1).tolist() == [0, 150, 150, 0]
    assert notes == ("Calibration pulse cut, in samples 0 to 149: II, III.",)


@pytest.mark.parametrize(
    ("first", "last", "height"),
    [
        (2000, 2100, 1.0),  # in the middle
        (50, 150, 0.5),
        (50, 150, 2.0),
        (50, 60, 1.0),  # 20 ms
        (50, 600, 1.0),  # 1.1 s
        (50, 150, -1.0),
    ],
)
def test_other_rectangles_stay(first: int, last: int, height: float) -> None:
    rows = beats(500)
    rows[:, first - 30 : last + 30] = 0
    rows[:, first:last] = height
    cut, notes = without_calibration(rows, 500, NAMES)
    assert (cut is rows, notes) == (True, ())


def test_rectangles_that_repeat_are_a_test_signal() -> None:
    phase = np.arange(5000) / 500 % 0.5
    rows = np.tile(((phase >= 0.2) & (phase < 0.4)).astype(np.float32), (4, 1))
    assert without_calibration(rows, 500, NAMES)[1] == ()


def test_beats_and_short_or_empty_leads_stay() -> None:
    assert without_calibration(beats(500), 500, NAMES)[1] == ()
    steep = np.where(beats(500) > 0.5, 1, 0).astype(np.float32)  # QRS complexes as rectangles
    assert without_calibration(steep, 500, NAMES)[1] == ()
    assert without_calibration(beats(500, 1), 500, NAMES)[1] == ()
    assert without_calibration(np.full((4, 3000), np.nan, np.float32), 500, NAMES)[1] == ()
