"""Limb leads computed from others."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.ecg.derived import with_derived_leads

from support.carts.signals import LEADS, millivolts, samples

WHOLE = dict(zip(LEADS, millivolts(samples()), strict=True))
LIMB = LEADS[:6]


@pytest.mark.parametrize("stored", [("I", "II"), ("I", "III"), ("II", "III")])
def test_two_of_einthovens_leads_give_the_others(stored: tuple[str, str]) -> None:
    complete, names = with_derived_leads({lead: WHOLE[lead] for lead in stored})
    assert set(names) == set(LIMB) - set(stored)
    for lead in LIMB:
        assert np.abs(complete[lead] - WHOLE[lead]).max() <= 0.0051  # a count, and float32


@pytest.mark.parametrize("stored", [("I",), ("II", "V1"), ("aVR", "aVL"), ("aVF",)])
def test_other_leads_give_none(stored: tuple[str, ...]) -> None:
    complete, names = with_derived_leads({lead: WHOLE[lead] for lead in stored})
    assert (tuple(complete), names) == (stored, ())


def test_recorded_leads_stay_as_they_are() -> None:
    odd = WHOLE | {"III": WHOLE["V1"]}
    complete, names = with_derived_leads(odd)
    assert names == ()
    assert complete["III"] is odd["III"]


def test_the_negative_of_an_inverted_lead_is_the_lead() -> None:
    complete, names = with_derived_leads({"-aVR": -WHOLE["aVR"], "V1": WHOLE["V1"]})
    assert names == ("aVR",)
    assert np.array_equal(complete["aVR"], WHOLE["aVR"])
    kept, none = with_derived_leads({"-aVR": -WHOLE["aVR"], "aVR": WHOLE["aVR"]})
    assert (tuple(kept), none) == (("-aVR", "aVR"), ())


def test_gaps_of_either_lead_are_gaps() -> None:
    one = WHOLE["I"].copy()
    two = WHOLE["II"].copy()
    one[:100] = np.nan
    two[-100:] = np.inf
    complete, _ = with_derived_leads({"I": one, "II": two})
    finite = np.isfinite(complete["III"])
    assert not finite[:100].any()
    assert not finite[-100:].any()
    assert finite[100:-100].all()


def test_leads_that_were_never_recorded_together_give_none() -> None:
    one = WHOLE["I"].copy()
    two = WHOLE["II"].copy()
    one[2500:] = np.nan
    two[:2500] = np.nan
    assert with_derived_leads({"I": one, "II": two}).names == ()
