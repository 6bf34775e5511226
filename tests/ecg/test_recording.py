"""Recordings: what is refused, and the names of leads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pulse_edge.ecg.recording import LEADS, Recording, canonical_lead
from pulse_edge.errors import RecordingError


@pytest.mark.parametrize(
    ("signals", "rate", "leads", "message"),
    [
        (np.zeros(5), 500, ("I",), r"float64 \[5\]"),
        (np.zeros((1, 5), complex), 500, ("I",), "complex128"),
        (np.zeros((1, 0)), 500, ("I",), "no samples"),
        (np.zeros((0, 5)), 500, (), "no leads"),
        (np.zeros((1, 5)), 0, ("I",), "rate of 0 Hz"),
        (np.zeros((1, 5)), 1e-310, ("I",), "rate of 1e-310"),
        (np.zeros((1, 5)), float("nan"), ("I",), "rate of nan"),
        (np.zeros((2, 5)), 500, ("I",), "1 lead names for 2"),
        (np.zeros((2, 5)), 500, ("aVR", "AVR"), "named aVR"),
    ],
)
def test_bad_recordings_are_refused(
    signals: Any, rate: float, leads: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecordingError, match=message):
        Recording(signals, rate, leads)


def test_recording_converts_once() -> None:
    record = Recording(np.array([[1e300, 1, np.nan]]), 500, ("lead ii",))
    assert record.leads == ("II",)
    assert record.signals.dtype == np.float32
    assert np.isinf(record.signals[0, 0])
    assert record.missing == tuple(lead for lead in LEADS if lead != "II")


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("Lead I (Einthoven)", "I"),
        ("AVR", "aVR"),
        ("avf", "aVF"),
        ("v6", "V6"),
        ("MDC_ECG_LEAD_V1", "V1"),
        ("ECG Lead III", "III"),
        (" II ", "II"),
        ("V7", "V7"),
        ("V3R", "V3R"),
        ("Lead -aVR", "Lead -aVR"),
        ("", ""),
    ],
)
def test_lead_names(name: str, lead: str) -> None:
    assert canonical_lead(name) == lead


def wave(lead: int = 0) -> np.ndarray:
    time = np.arange(5000) / 500
    return np.sin(2 * np.pi * (1 + lead / 5) * time)


def test_a_repeated_row_is_dropped_and_a_different_one_refused() -> None:
    rows = np.stack([wave(0), wave(1), wave(1), wave(0)])
    record = Recording(rows, 500, ("I", "II", "Lead II", "DI"))
    assert record.leads == ("I", "II")
    assert np.allclose(record.signals, rows[:2])
    rows[2, 7] += 0.001
    with pytest.raises(RecordingError, match="more than one signal is named II"):
        Recording(rows, 500, ("I", "II", "II", "V1"))
    gap = np.stack([wave(0), wave(0)])
    gap[:, 100:200] = np.nan
    assert Recording(gap, 500, ("I", "I")).leads == ("I",)


def test_notes_of_a_reader_come_first_and_once() -> None:
    record = Recording(np.stack([wave()]), 500, ("II",), notes=("Said by a reader.",))
    missing = " ".join(lead for lead in LEADS if lead != "II")
    assert record.notes == ("Said by a reader.", f"Not recorded: {missing}.")
    assert replace(record, source="copy").notes == record.notes


def test_what_a_page_will_not_show_is_noted() -> None:
    rows = np.stack([wave(lead) for lead in range(12)])
    assert Recording(rows, 500, LEADS).notes == ()
    assert Recording(rows[:, :4990], 500, LEADS).notes == ()  # 20 ms are not seen
    short = Recording(rows[:, :2000], 500, LEADS)
    assert short.notes == ("The recording ends at 4.0 s; a page is blank from there.",)
    long = Recording(np.tile(rows, 3), 500, LEADS)
    assert long.notes == ("The recording lasts 30.0 s; a page shows at most the first 10 s.",)
    parts = rows.copy()
    parts[:3, 1250:] = np.nan
    parts[6, :1000] = np.inf
    parts[7, 2000:2100] = np.nan
    assert Recording(parts, 500, LEADS).notes == (
        "Recorded in part: I II III from 0.0 to 2.5 s; V1 from 2.0 to 10.0 s.",
        "With gaps: V2.",
    )
    other = Recording(np.vstack([rows, rows[:2]]), 500, (*LEADS, "V7", "a\x1b[1m"))
    assert other.notes == ("Found but not drawn: V7, a?[1m.",)
