"""Amplitudes that no ECG has, and those that look odd and are sound."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pulse_edge.ecg.amplitude import check_amplitudes
from pulse_edge.ecg.recording import LEADS, Recording
from pulse_edge.errors import RecordingError

RATE = 500.0


def signals(seconds: float = 10) -> np.ndarray:
    """Beats of 0.2 to 1.3 mV in 12 leads."""
    phase = np.arange(round(seconds * RATE)) / RATE % 0.8
    beat = np.exp(-(((phase - 0.3) / 0.02) ** 2)) + 0.2 * np.exp(-(((phase - 0.55) / 0.05) ** 2))
    return np.outer(0.2 + 0.1 * np.arange(12), beat)


def notes(rows: np.ndarray) -> tuple[str, ...]:
    return Recording(rows, RATE, LEADS, tolerance=math.inf).notes  # 12 leads of one shape


@pytest.mark.parametrize("factor", [1000, 200, 400, 4096])
@pytest.mark.parametrize("kind", ["f4", "f8", "i4"])
def test_other_units_are_refused(factor: int, kind: str) -> None:
    rows = np.where(signals() < 0.01, 0.01, signals()) * factor
    with pytest.raises(
        RecordingError, match=r"lead \w+ lies .*expected -5 to 5 mV; signals are mV"
    ):
        Recording(rows.astype(kind), RATE, LEADS)


@pytest.mark.parametrize("offset", [-300, -40, -8, -5.1, 5.1, 10.24, 40, 300])
def test_offsets_are_refused_with_the_range(offset: float) -> None:
    rows = signals()
    rows[7] += offset
    low, high = rows[7].min(), rows[7].max()
    with pytest.raises(RecordingError, match="lead V2 lies between") as caught:
        Recording(rows, RATE, LEADS)
    assert f"{low:.4g} and {high:.4g} mV" in str(caught.value)
    assert "remove the lead's offset" in str(caught.value)


@pytest.mark.parametrize("factor", [1e-3, 1e-6, 0.005])
def test_signals_in_volts_are_refused(factor: float) -> None:
    with pytest.raises(
        RecordingError, match=r"largest lead, V6, spans .*expected at least 0.01 mV"
    ):
        notes(signals() * factor)


@pytest.mark.parametrize("peak", [17.0, 60.0, 300.0])
def test_a_short_peak_is_sound(peak: float) -> None:
    rows = signals()
    rows[8, 1000:1040] = peak  # 0.8 % of the samples
    assert notes(rows) == ()


def test_large_complexes_are_sound() -> None:
    assert notes(signals() * 4) == ()


def test_flat_leads_are_said() -> None:
    rows = signals()
    rows[2] = 0.3
    rows[9] = 0
    assert notes(rows) == ("Flat: III V4.",)
    assert notes(np.zeros((12, 5000))) == ("Flat: no lead spans more than 0 mV.",)
    assert notes(signals() * 0.03) == ("Flat: no lead spans more than 0.039 mV.",)


def test_what_no_page_shows_is_not_judged() -> None:
    rows = signals(30)
    rows[:, 6000:] = 1000
    assert len(notes(rows)) == 1  # of the length
    extra = np.vstack([signals(), np.full((1, 5000), 800.0)])
    record = Recording(extra, RATE, (*LEADS, "ART"), tolerance=math.inf)
    assert record.notes == ("Found but not drawn: ART.",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gaps_are_not_judged(value: float) -> None:
    rows = signals()
    rows[4] = value
    rows[5, 1000:4000] = value
    assert notes(rows) == ("Not recorded: aVL.", "With gaps: aVF.")


def refused(*samples: tuple[float, int]) -> str:
    """Why a lead is refused that holds each value as often as said; "" if it is not."""
    row = np.concatenate([np.full(count, value, np.float32) for value, count in samples])
    try:
        check_amplitudes(row[None], ("I",), "file")
    except RecordingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("samples", "sound"),
    [
        ([(0, 49), (5.0, 51)], True),  # half of the samples may lie at the limit
        ([(0, 51), (6.0, 49)], True),
        ([(0, 50), (6.0, 50)], False),
        ([(0, 40), (-6.0, 60)], False),
        ([(0, 991), (300.0, 9)], True),  # fewer than 1 % are a loose electrode
        ([(0, 990), (300.0, 10)], False),
        ([(0, 900), (20.0, 100)], True),
        ([(0, 9), (25.0, 1)], False),  # 1 of 10 is more than 1 %
    ],
)
def test_the_share_of_large_samples_decides(samples: list[tuple[float, int]], sound: bool) -> None:
    assert (refused(*samples) == "") == sound


def test_a_span_over_20_mv_is_a_wrong_unit_and_less_an_offset() -> None:
    assert "remove the lead's offset" in refused((0, 1), (20.0, 99))
    assert "look like microvolts" in refused((0, 1), (20.5, 99))
