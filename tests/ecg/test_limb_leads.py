"""Einthoven's and Goldberger's laws: named where they fail, refused where they fail in most."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from pulse_edge.ecg.limb_leads import LAWS, check_limb_leads
from pulse_edge.ecg.recording import LEADS
from pulse_edge.errors import RecordingError

RATE = 250.0
Rows = dict[str, np.ndarray]


def leads(seconds: float = 10) -> Rows:
    """Six limb leads of waves that never rest: 0.4 mV in I, 0.9 mV in II."""
    time = np.arange(round(seconds * RATE)) / RATE
    one = 0.4 * np.sin(2 * np.pi * 3 * time)
    two = 0.9 * np.sin(2 * np.pi * 3 * time + 0.5) + 0.2 * np.sin(2 * np.pi * 7 * time)
    rows = (one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    return {lead: row.astype(np.float32) for lead, row in zip(LEADS, rows, strict=False)}


def check(rows: Rows, step: float = 0.0) -> tuple[str, ...]:
    return check_limb_leads(rows, RATE, "file", step)


def test_sound_leads_are_not_mentioned() -> None:
    assert check(leads()) == ()
    rounded = {lead: np.rint(row / 0.005) * np.float32(0.005) for lead, row in leads().items()}
    assert check(rounded) == ()
    coarse = {lead: np.rint(row / 0.04) * np.float32(0.04) for lead, row in leads().items()}
    assert check(coarse, step=0.04) == ()


@pytest.mark.parametrize("lead", list(LEADS[:6]))
@pytest.mark.parametrize(("first", "last"), [(0, 1), (700, 799), (1500, 2499)])
def test_a_disturbance_is_named_with_its_place(lead: str, first: int, last: int) -> None:
    rows = leads()
    rows[lead][first : last + 1] += 0.3
    (note,) = check(rows)
    assert f"samples {first:,} to {last:,}" in note
    assert "up to 0.30 mV" in note or "up to 0.15 mV" in note
    assert {law for law, factors in LAWS.items() if lead in factors} == {
        law for law in LAWS if law in note
    }


@pytest.mark.parametrize(("apart", "named"), [(0.045, False), (0.055, True)])
def test_the_limit_is_a_twentieth_of_a_millivolt(apart: float, named: bool) -> None:
    rows = leads()
    rows["III"][500:600] += apart
    assert bool(check(rows)) == named


def swapped(one: str, other: str) -> Callable[[Rows], Rows]:
    return lambda rows: rows | {one: rows[other], other: rows[one]}


@pytest.mark.parametrize(
    "mix",
    [
        swapped("I", "II"),
        swapped("II", "III"),
        swapped("aVR", "aVL"),
        swapped("I", "aVF"),
        lambda rows: rows | {"I": -rows["I"]},
        lambda rows: rows | {"aVR": -rows["aVR"]},
        lambda rows: rows | {"III": 2 * rows["III"]},
        lambda rows: rows | {"II": np.roll(rows["II"], 20)},
        lambda rows: rows | {"aVF": rows["aVF"][::-1]},
        lambda rows: rows | {"I": np.random.default_rng(1).normal(0, 0.3, 2500)},
    ],
)
def test_leads_that_are_mixed_up_are_refused(mix: Callable[[Rows], Rows]) -> None:
    with pytest.raises(
        RecordingError, match=r"file: the limb leads are not of one ECG: .* fails by"
    ):
        check(mix(leads()))


@pytest.mark.parametrize("offset", [-2.0, -0.2, 0.08, 1.0])
def test_an_offset_of_a_lead_is_named(offset: float) -> None:
    rows = leads()
    rows["aVL"] = rows["aVL"] + offset
    (note,) = check(rows)
    assert re.search(r"100% of samples 0 to 2,499", note)


def test_a_wandering_baseline_is_named() -> None:
    rows = leads()
    time = np.arange(2500) / RATE
    rows["II"] = rows["II"] + 0.5 * np.sin(2 * np.pi * 0.2 * time)
    assert len(check(rows)) == 1


def test_leads_are_compared_only_where_all_were_recorded() -> None:
    rows = leads()
    rows["III"][:2000] = np.nan
    rows["III"][:1000] = np.inf
    rows["I"][2000:] = np.nan
    assert check(rows) == ()
    assert check({lead: rows[lead] for lead in ("II", "aVR", "aVL")}) == ()
    assert check({}) == ()


def test_less_than_a_beat_is_never_refused() -> None:
    rows = leads(0.9)
    rows["I"] = -rows["I"]
    assert len(check(rows)) == 1
