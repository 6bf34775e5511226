"""Recordings: what is refused, and the names of leads."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
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
    record = Recording(np.array([[np.inf, 1, np.nan]]), 500, ("lead ii",))
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
    free = partial(Recording, tolerance=math.inf)  # of the laws of limb leads
    assert free(rows, 500, LEADS).notes == ()
    assert free(rows[:, :4990], 500, LEADS).notes == ()  # 20 ms are not seen
    short = free(rows[:, :2000], 500, LEADS)
    assert short.notes == ("The recording ends at 4.0 s; a page is blank from there.",)
    long = free(np.tile(rows, 3), 500, LEADS)
    assert long.notes == ("The recording lasts 30.0 s; a page shows at most the first 10 s.",)
    parts = rows.copy()
    parts[:3, 1250:] = np.nan
    parts[6, :1000] = np.inf
    parts[7, 2000:2100] = np.nan
    assert free(parts, 500, LEADS).notes == (
        "Recorded in part: I II III from 0.0 to 2.5 s; V1 from 2.0 to 10.0 s.",
        "With gaps: V2.",
    )
    other = free(np.vstack([rows, rows[:2]]), 500, (*LEADS, "V7", "a\x1b[1m"))
    assert other.notes == ("Found but not drawn: V7, a?[1m.",)


def zeros(*shape: int) -> Any:
    """Signals of 64 bits, which a caller may hand in as well."""
    return np.zeros(shape)


def test_the_source_is_named_in_messages() -> None:
    for source, name in (("", "recording"), ("a.dcm", "a.dcm")):
        with pytest.raises(RecordingError, match=f"^{name}: the recording holds no leads$"):
            Recording(zeros(0, 5), 500, (), source)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i2", "u1", "i8"])
def test_real_numbers_of_any_type_are_signals(kind: str) -> None:
    signals: Any = np.array([[0, 1, 2, 1]]).astype(kind)
    record = Recording(signals, 500, ("I",))
    assert record.signals.dtype == np.float32
    assert record.signals.tolist() == [[0, 1, 2, 1]]


@pytest.mark.parametrize("kind", ["c8", "?", "U1", "O", "M8[s]"])
def test_other_types_are_no_signals(kind: str) -> None:
    with pytest.raises(RecordingError, match=r"expected real numbers \[leads, samples\]$"):
        Recording(zeros(1, 5).astype(kind), 500, ("I",))


@pytest.mark.parametrize("shape", [(), (5,), (1, 5, 1)])
def test_other_shapes_are_no_signals(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecordingError, match=r"signals are float64 \[.*expected real numbers"):
        Recording(zeros(*shape), 500, ("I",))


@pytest.mark.parametrize("rate", [1, 500, 1_000_000])
def test_rates_that_are_accepted(rate: int) -> None:
    record = Recording(zeros(1, 50), rate, ("I",))
    assert (record.rate, record.duration) == (float(rate), 50 / rate)
    assert isinstance(record.rate, float)
    assert isinstance(record.duration, float)


@pytest.mark.parametrize("rate", [0.99, 1_000_001, -500, float("inf")])
def test_rates_that_are_refused(rate: float) -> None:
    with pytest.raises(RecordingError, match=r"Hz; expected 1 to 1,000,000$"):
        Recording(zeros(1, 50), rate, ("I",))


def test_as_many_names_as_rows() -> None:
    for leads in (("I",), ("I", "II", "III"), ()):
        with pytest.raises(RecordingError, match=f"{len(leads)} lead names for 2 signals$"):
            Recording(zeros(2, 50), 500, leads)


@pytest.mark.parametrize(("changed", "accepted"), [(999, True), (1000, False)])
def test_repeats_that_rest_for_a_thousand_samples_prove_nothing(
    changed: int, accepted: bool
) -> None:
    rows = zeros(2, 2000)
    rows[:, changed:] = 0.5
    if accepted:
        assert Recording(rows, 500, ("I", "I")).leads == ("I",)
    else:
        with pytest.raises(RecordingError, match="more than one signal is named I"):
            Recording(rows, 500, ("I", "I"))


def test_every_name_that_is_there_twice_is_said_once() -> None:
    rows: Any = np.stack([wave(n) for n in range(6)])
    with pytest.raises(RecordingError, match=r"more than one signal is named II, V1$"):
        Recording(rows, 500, ("V1", "II", "V1", "II", "II", "I"))
