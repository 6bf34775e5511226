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


# --- to the sample --------------------------------------------------------------------------------


def with_pulse(
    first: int, last: int, height: float = 1.0, foot: float = 0.0, length: int = 5500
) -> np.ndarray:
    """A lead at 500 Hz that rests at 0, with a rectangle from `first` to `last` on a foot."""
    row = np.zeros(length, np.float32)
    row[max(0, first - 40) : last + 41] = foot
    row[first : last + 1] = np.float32(foot) + np.float32(height)
    return row


def blanked(row: np.ndarray) -> tuple[int, int] | None:
    """The first and last sample that is taken for a pulse, among leads without one."""
    rest = np.zeros_like(row)
    rows, notes = without_calibration(np.stack([rest, row]), 500, ("I", "II"))
    if not notes:
        assert np.array_equal(rows[1], row)
        return None
    blank = np.flatnonzero(np.isnan(rows[1]))
    assert not np.isnan(rows[0]).any()
    first, last = int(blank[0]), int(blank[-1])
    assert len(blank) == last + 1 - first
    assert notes == (f"Calibration pulse cut, in samples {first:,} to {last:,}: II.",)
    return first, last


@pytest.mark.parametrize(
    ("row", "span"),
    [
        (with_pulse(100, 199), (0, 199)),
        (with_pulse(5300, 5399), (5300, 5499)),
        (with_pulse(100, 129), (0, 129)),  # 60 ms
        (with_pulse(100, 128), None),
        (with_pulse(100, 399), (0, 399)),  # 600 ms
        (with_pulse(100, 400), None),
        (with_pulse(749, 849), (0, 849)),  # 1.5 s
        (with_pulse(750, 850), None),
        (with_pulse(4600, 4750), (4600, 5499)),
        (with_pulse(4600, 4749), None),
        (with_pulse(100, 199, 0.91), (0, 199)),
        (with_pulse(100, 199, 1.09), (0, 199)),
        (with_pulse(100, 199, 0.89), None),
        (with_pulse(100, 199, 1.11), None),
        (with_pulse(100, 199, foot=0.29), (0, 199)),
        (with_pulse(100, 199, foot=-0.29), (0, 199)),
        (with_pulse(100, 199, foot=0.31), None),
        (with_pulse(100, 199, foot=-0.31), None),
        (with_pulse(0, 99), (0, 99)),
        (with_pulse(1, 99), (0, 99)),
        (with_pulse(5400, 5499), (5400, 5499)),
        (with_pulse(5400, 5498), (5400, 5499)),
        (with_pulse(100, 199, length=1500), (0, 199)),  # 3 s
        (with_pulse(100, 199, length=1499), None),
    ],
)
def test_a_pulse_by_its_width_height_foot_and_place(
    row: np.ndarray, span: tuple[int, int] | None
) -> None:
    assert blanked(row) == span


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0.5), (200, 0.5), (200, 1.5), (5499, 0.4), (5399, 0.4)],
)
def test_every_edge_that_is_there_rises_by_a_millivolt(at: int, value: float) -> None:
    """Also one that is a single sample at the recording's beginning or end."""
    row = with_pulse(1, 199) if at < 1000 else with_pulse(5400, 5498)
    assert blanked(row) is not None
    row[at : at + 40 if at == 200 else at + 1] = value
    if at == 5399:
        row[5360:5400] = value
    assert blanked(row) is None


@pytest.mark.parametrize(("samples", "found"), [(4, True), (5, False)])
def test_an_edge_takes_10_ms(samples: int, found: bool) -> None:
    """Samples between foot and top, at either end."""
    row = with_pulse(100, 199)
    ramp = np.linspace(0, 1, samples + 2)[1:-1]
    row[100 - samples : 100] = ramp
    row[200 : 200 + samples] = ramp[::-1]
    assert (blanked(row) is not None) == found


@pytest.mark.parametrize(("ripple", "found"), [(0.0095, True), (0.012, False)])
def test_the_top_is_level(ripple: float, found: bool) -> None:
    row = with_pulse(100, 199)
    row[101:199:2] += np.float32(ripple)
    assert (blanked(row) is not None) == found


def test_one_pulse_at_either_end_and_no_more() -> None:
    both = with_pulse(100, 199) + with_pulse(5300, 5399)
    rows, notes = without_calibration(np.stack([both, 0 * both]), 500, ("I", "II"))
    assert np.flatnonzero(np.isnan(rows[0])).tolist() == [*range(200), *range(5300, 5500)]
    assert notes == ("Calibration pulse cut, in samples 0 to 5,499: I.",)
    for more in (with_pulse(400, 499), with_pulse(2500, 2599), with_pulse(5050, 5149)):
        assert blanked(both + more) is None
    assert blanked(with_pulse(100, 199) + with_pulse(400, 499)) is None


def test_places_count_from_where_a_lead_begins() -> None:
    row = np.full(6000, np.nan, np.float32)
    row[300:5800] = with_pulse(100, 199)
    rows, notes = without_calibration(np.stack([row, np.zeros_like(row)]), 500, ("I", "II"))
    assert np.flatnonzero(np.isfinite(rows[0]))[[0, -1]].tolist() == [500, 5799]
    assert notes == ("Calibration pulse cut, in samples 300 to 499: I.",)
    row[300:5800] = with_pulse(5300, 5399)
    rows, notes = without_calibration(np.stack([row, np.zeros_like(row)]), 500, ("I", "II"))
    assert np.flatnonzero(np.isfinite(rows[0]))[[0, -1]].tolist() == [300, 5599]
    assert notes == ("Calibration pulse cut, in samples 5,600 to 5,799: I.",)


def test_other_rates_have_edges_of_at_least_a_sample() -> None:
    row = np.zeros(330, np.float32)
    row[5:15] = 1
    rows, notes = without_calibration(np.stack([row, 0 * row]), 30, ("I", "II"))
    assert np.isnan(rows[0]).sum() == 15
    assert notes == ("Calibration pulse cut, in samples 0 to 14: I.",)
