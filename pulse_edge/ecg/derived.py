"""Limb leads that a file leaves out, computed by Einthoven's and Goldberger's laws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
INVERTED = "-aVR"  # of Cabrera's order: its negative is aVR
# Einthoven: I + III = II. The lead -> factors of the other two.
_EINTHOVEN = {
    "I": {"II": 1.0, "III": -1.0},
    "II": {"I": 1.0, "III": 1.0},
    "III": {"II": 1.0, "I": -1.0},
}
_GOLDBERGER = {
    "aVR": {"I": -0.5, "II": -0.5},
    "aVL": {"I": 1.0, "II": -0.5},
    "aVF": {"II": 1.0, "I": -0.5},
}


class DerivedLeads(NamedTuple):
    """Leads of a recording, with those that were computed.

    Attributes:
        rows: signals by lead, mV: those that were recorded, then the derived ones.
        names: of the derived leads.
    """

    rows: dict[str, Row]
    names: tuple[str, ...]


def with_derived_leads(rows: Mapping[str, Row]) -> DerivedLeads:
    """Compute the limb leads that are absent. A lead that was recorded stays as it is.

    Args:
        rows: signals by lead, mV, of one length; not finite where nothing was recorded. A derived
            lead has a value where both of its leads have one.
    """
    complete = dict(rows)
    if INVERTED in complete and "aVR" not in complete:
        complete["aVR"] = -complete.pop(INVERTED)
    for laws in (_EINTHOVEN, _GOLDBERGER):
        for lead, factors in laws.items():
            if lead not in complete and factors.keys() <= complete.keys():
                row = _weighted_sum(factors, complete)
                if np.isfinite(row).any():
                    complete[lead] = row
    return DerivedLeads(complete, tuple(lead for lead in complete if lead not in rows))


def _weighted_sum(factors: Mapping[str, float], rows: Mapping[str, Row]) -> Row:
    with np.errstate(invalid="ignore"):  # infinity counts as a gap
        parts = [factor * rows[lead].astype(np.float64) for lead, factor in factors.items()]
        return np.asarray(sum(parts), np.float32)
