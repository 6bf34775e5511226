"""Einthoven's and Goldberger's laws: named where they fail, refused where they fail in most."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from pulse_edge.ecg.limb_leads import LAWS, TOLERANCE, check_limb_leads
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
    return check_limb_leads(rows, RATE, "file", max(TOLERANCE, 2 * step))


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


@pytest.mark.parametrize(("apart", "named"), [(0.075, False), (0.085, True)])
def test_a_law_may_fail_by_its_tolerance(apart: float, named: bool) -> None:
    rows = leads()
    rows["III"][500:600] += apart
    assert bool(check_limb_leads(rows, RATE, "file", 0.08)) == named


def test_the_worst_laws_come_first_and_the_others_are_only_named() -> None:
    rows = leads()
    rows["III"][:250] += 0.3
    rows["aVR"][250:300] += 0.8
    rows["aVF"][:100] -= 0.2
    assert check(rows) == (
        "Limb leads disagree: aVR + aVL + aVF = 0 fails by up to 0.80 mV in 6% of samples 0 to "
        "299; aVR = -(I + II) / 2 fails by up to 0.80 mV in 2% of samples 250 to 299; so do "
        "I + III = II, aVF = II - I / 2.",
    )


def test_three_leads_are_enough_for_a_law() -> None:
    rows = leads()
    alone = {lead: rows[lead] for lead in ("I", "II", "III")}
    assert check(alone) == ()
    with pytest.raises(RecordingError, match=r"I \+ III = II fails"):
        check(alone | {"III": -alone["III"]})


def test_no_baseline_is_taken_away_where_the_leads_agree_without_it() -> None:
    """Against its median, the difference would be large in most samples."""
    rows = leads()
    rows["III"] += np.resize(np.repeat([-0.04, 0.04, 0.2], (7, 7, 6)), 2500).astype(np.float32)
    (note,) = check(rows)
    assert "I + III = II fails by up to 0.20 mV in 30% of samples 14 to 2,499" in note


@pytest.mark.parametrize(("count", "sound"), [(1250, True), (1251, False)])
def test_a_law_may_fail_in_half_of_the_samples(count: int, sound: bool) -> None:
    rows = leads()
    rows["III"][:count] += np.where(np.arange(count) % 2, 3, -3).astype(np.float32)
    if sound:
        assert "in 50% of samples 0 to 1,249" in check(rows)[0]
    else:
        with pytest.raises(RecordingError, match="check the names and signs"):
            check(rows)


@pytest.mark.parametrize(("seconds", "sound"), [(0.996, True), (1.0, False)])
def test_a_second_is_enough_to_refuse(seconds: float, sound: bool) -> None:
    rows = leads(seconds)
    rows["I"] = -rows["I"]
    if sound:
        assert len(check(rows)) == 1
    else:
        with pytest.raises(RecordingError):
            check(rows)


@pytest.mark.parametrize("period", [6.0, 10.0])
def test_a_baseline_that_moves_by_many_millivolts_is_named(period: float) -> None:
    """Lines between the medians of whole seconds follow it to within half a small square."""
    rows = leads()
    time = np.arange(2500) / RATE
    drift = 3 * np.abs(2 * ((time / period) % 1) - 1)  # a zigzag: lines, with few corners
    rows["II"] = rows["II"] + drift.astype(np.float32)
    (note,) = check(rows)
    assert "fails by up to 3.00 mV" in note


@pytest.mark.parametrize(("apart", "named"), [(0.25, False), (0.2500001, True)])
def test_the_tolerance_itself_is_no_breach(apart: float, named: bool) -> None:
    rows = {lead: np.zeros(500, np.float32) for lead in ("I", "II", "III")}
    rows["III"][:100] = apart
    assert bool(check_limb_leads(rows, RATE, "file", 0.25)) == named
