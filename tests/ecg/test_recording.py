"""Recordings: what is refused, and the names of leads."""

from __future__ import annotations

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
