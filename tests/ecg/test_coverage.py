"""What a page will not show: lengths, parts and gaps, to the tenth of a second."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.ecg.coverage import coverage_notes, drawn_samples, length_notes
from pulse_edge.ecg.leads import LEADS

RATE = 100.0


@pytest.mark.parametrize(
    ("rate", "samples"), [(500, 5001), (1000, 10_001), (0.5, 6), (250.01, 2502), (1, 11)]
)
def test_a_page_shows_10_s_and_the_sample_that_ends_them(rate: float, samples: int) -> None:
    assert drawn_samples(rate) == samples


@pytest.mark.parametrize(
    ("seconds", "notes"),
    [
        (9.9, ()),
        (10.0, ()),
        (10.1, ()),
        (9.89, ("The recording ends at 9.9 s; a page is blank from there.",)),
        (10.11, ("The recording lasts 10.1 s; a page shows at most the first 10 s.",)),
    ],
)
def test_a_tenth_of_a_second_is_not_noticed(seconds: float, notes: tuple[str, ...]) -> None:
    assert length_notes(seconds) == notes


def notes(seconds: float = 10, **spans: tuple[float, float]) -> tuple[str, ...]:
    """Notes of 12 leads that were recorded from and to these seconds, or throughout."""
    length = round(seconds * RATE)
    rows = np.zeros((12, length), np.float32)
    for lead, (first, last) in spans.items():
        row = rows[LEADS.index(lead)]
        row[: round(first * RATE)] = np.nan
        row[round(last * RATE) :] = np.nan
    return coverage_notes(rows, LEADS, RATE, seconds)


def test_whole_leads_are_not_mentioned() -> None:
    assert notes() == ()


def test_an_end_of_a_tenth_of_a_second_is_not_noticed() -> None:
    assert notes(V1=(0.1, 10), V2=(0, 9.9)) == ()
    assert notes(V1=(0.11, 10)) == ("Recorded in part: V1 from 0.1 to 10.0 s.",)
    assert notes(V2=(0, 9.89)) == ("Recorded in part: V2 from 0.0 to 9.9 s.",)


def test_leads_of_the_same_tenths_are_named_together() -> None:
    together = notes(I=(1.01, 4.98), II=(1.04, 5.03), V1=(1.2, 5), V2=(1, 5.4))
    assert together == (
        "Recorded in part: I II from 1.0 to 5.0 s; V1 from 1.2 to 5.0 s; V2 from 1.0 to 5.4 s.",
    )


def test_a_lead_that_lasts_as_long_as_its_short_recording_is_whole() -> None:
    ends = "The recording ends at 4.0 s; a page is blank from there."
    assert notes(4, V1=(0, 3.95)) == (ends,)
    assert notes(4, V1=(0, 3.5)) == ("Recorded in part: V1 from 0.0 to 3.5 s.", ends)


@pytest.mark.parametrize(("missing", "named"), [(10, False), (11, True)])
def test_a_gap_of_a_tenth_of_a_second_is_not_noticed(missing: int, named: bool) -> None:
    """Also in several pieces."""
    for places in (slice(300, 300 + missing), slice(300, 300 + 2 * missing, 2)):
        rows = np.zeros((12, 1000), np.float32)
        rows[3, places] = np.inf
        said = coverage_notes(rows, LEADS, RATE, 10)
        assert said == (("With gaps: aVR.",) if named else ())


def test_what_is_missing_and_what_is_no_standard_lead_is_listed() -> None:
    rows = np.zeros((12, 1000), np.float32)
    rows[2] = np.nan
    said = coverage_notes(rows, (*LEADS[:11], "V7"), RATE, 10)
    assert said == ("Not recorded: III V6.", "Found but not drawn: V7.")


@pytest.mark.parametrize("name", ["-aVR", "-AVR", "\u2212aVR", "\u2013aVR"])
def test_the_inverted_lead_of_the_cabrera_order_is_named_as_such(name: str) -> None:
    signals = np.zeros((2, 1000), np.float32)
    notes = coverage_notes(signals, ("I", name), 100, 10.0)
    assert any(note.startswith("-aVR is aVR upside down, of the Cabrera order") for note in notes)
    notes = coverage_notes(signals, ("I", "V7"), 100, 10.0)
    assert not any("Cabrera" in note for note in notes)
