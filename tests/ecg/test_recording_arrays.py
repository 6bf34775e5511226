"""Arrays are judged as files are: limb leads, calibration pulses, values that no ECG has."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from pulse_edge.ecg.drawing import draw_page
from pulse_edge.ecg.limb_leads import TOLERANCE
from pulse_edge.ecg.recording import LEADS, Recording
from pulse_edge.errors import RecordingError
from pulse_edge.page.source import read_input

RATE = 500


def heart(seconds: float = 10) -> np.ndarray:
    """12 leads of one heart: float64 [12, samples], mV."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = time % 0.8
    one = np.exp(-(((phase - 0.3) / 0.03) ** 2)) + 0.3 * np.sin(2 * np.pi * time)
    two = 0.8 * np.exp(-(((phase - 0.32) / 0.04) ** 2)) - 0.4 * np.cos(2 * np.pi * time)
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [one * (0.2 + 0.1 * number) + two / 3 for number in range(6)]
    return np.stack(limbs + chest)


def changed(*edits: tuple[str, str | float]) -> np.ndarray:
    """`heart` with leads exchanged for others, or scaled."""
    rows = heart()
    whole = heart()
    for lead, other in edits:
        source = whole[LEADS.index(other)] if isinstance(other, str) else whole[LEADS.index(lead)]
        rows[LEADS.index(lead)] = source if isinstance(other, str) else source * other
    return rows


def test_leads_of_one_heart_are_taken_without_a_word() -> None:
    assert Recording(heart(), RATE, LEADS).notes == ()
    assert Recording(heart().astype(np.float16), RATE, LEADS).notes == ()


MIXED_UP = {
    "arms exchanged": (("I", -1.0), ("II", "III"), ("III", "II"), ("aVR", "aVL"), ("aVL", "aVR")),
    "I and II exchanged": (("I", "II"), ("II", "I")),
    "II and III exchanged": (("II", "III"), ("III", "II")),
    "I upside down": (("I", -1.0),),
    "II upside down": (("II", -1.0),),
    "aVR upside down": (("aVR", -1.0),),
    "aVF of V1": (("aVF", "V1"),),
    "II of V6": (("II", "V6"),),
    "III twice as large": (("III", 2.0),),
    "all one lead": tuple((lead, "I") for lead in LEADS),
    "aVL and aVF exchanged": (("aVL", "aVF"), ("aVF", "aVL")),
}


@pytest.mark.parametrize("kind", [kind for kind in MIXED_UP if kind != "arms exchanged"])
def test_leads_that_are_mixed_up_are_refused(kind: str) -> None:
    with pytest.raises(
        RecordingError, match=r"the limb leads are not of one ECG: .* check the names"
    ):
        Recording(changed(*MIXED_UP[kind]), RATE, LEADS)


def test_electrodes_that_are_exchanged_obey_the_laws() -> None:
    """That is an ECG, of a patient with the arm electrodes exchanged: no file shows it either."""
    assert Recording(changed(*MIXED_UP["arms exchanged"]), RATE, LEADS).notes == ()


def test_only_what_is_there_is_compared() -> None:
    rows = changed(("II", -1.0))
    assert Recording(rows[[1, 6]], RATE, ("II", "V1")).notes[0].startswith("Not recorded")
    rows[2:6] = np.nan
    assert "Limb leads" not in " ".join(Recording(rows, RATE, LEADS).notes)


def test_a_stretch_that_disagrees_is_drawn_and_named() -> None:
    rows = heart()
    rows[1, 1000:1100] += 0.7
    [note] = Recording(rows, RATE, LEADS).notes
    assert note.startswith("Limb leads disagree: ")
    assert "fails by up to 0.70 mV" in note
    assert "samples 1,000 to 1,099" in note
    assert read_input(Recording(rows, RATE, LEADS)).notes == (note,)


def test_a_baseline_that_moved_is_named_and_not_refused() -> None:
    rows = heart()
    rows[2] += 0.3
    [note] = Recording(rows, RATE, LEADS).notes
    assert note.startswith("Limb leads disagree: I + III = II fails by up to 0.30 mV in 100%")


@pytest.mark.parametrize("tolerance", [0.2, 1.0, 20, math.inf])
def test_a_tolerance_takes_coarse_samples(tolerance: float) -> None:
    rows = (np.round(heart() / 0.1) * 0.1).astype(np.float32)
    assert Recording(rows, RATE, LEADS, tolerance=tolerance).notes == ()
    assert Recording(rows, RATE, LEADS).notes != ()


def test_infinity_takes_signals_that_nobody_recorded() -> None:
    rows = changed(("II", -1.0), ("aVF", "V1"))
    assert Recording(rows, RATE, LEADS, tolerance=math.inf).notes == ()


@pytest.mark.parametrize("tolerance", [0, -1, 0.01, math.nan, -math.inf])
def test_a_tolerance_below_the_usual_one_is_refused(tolerance: float) -> None:
    with pytest.raises(
        RecordingError, match=f"a tolerance of .*expected at least {TOLERANCE:g} mV"
    ):
        Recording(heart(), RATE, LEADS, tolerance=tolerance)


@pytest.mark.parametrize("value", [1e39, -1e39, 1e300, -1.7e308])
@pytest.mark.parametrize("places", [slice(7, 8), slice(0, 4000)])
def test_values_beyond_float32_are_refused_by_name(value: float, places: slice) -> None:
    rows = heart()
    rows[7, places] = value
    with pytest.raises(RecordingError, match=r"lead V2 has the value -?1(\.7)?e\+\d+ mV; expected"):
        Recording(rows, RATE, LEADS)


@pytest.mark.parametrize("value", [21.0, 1e5, 1e30, 3e38, -3e38])
def test_peaks_are_drawn_without_a_warning(value: float) -> None:
    """An electrode that loosens gives such peaks, in less than 1 % of the samples."""
    rows = heart()
    rows[6:, 3000:3020] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = draw_page(Recording(rows, RATE, LEADS))
    assert page.mode == "RGB"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_gap_and_named(value: float) -> None:
    rows = heart()
    rows[8, 2000:2300] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = Recording(rows, RATE, LEADS)
        draw_page(record)
    assert record.notes == ("With gaps: V3.",)


@pytest.mark.parametrize("begin", [0, 100, 4650])
def test_a_calibration_pulse_in_an_array_is_drawn_and_named(begin: int) -> None:
    rows = heart()
    rows[:, max(0, begin - 60) : begin + 160] = 0
    rows[6:, begin : begin + 100] = 1
    notes = Recording(rows, RATE, LEADS).notes
    assert any(
        note.startswith("Calibration pulse drawn, in samples ") and "V1" in note for note in notes
    )
