"""What the files of carts hold: samples, the cart's words, and names that nobody may see again."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from support.dicom_files import LEADS as LEADS
from support.dicom_files import ecg

Signals = Mapping[str, NDArray[np.int64]]  # counts by lead

STEP = 5.0  # uV a count
RATE = 500
PERSON = "Quillfeather"  # the planted name: patient, staff, hospital
OTHER = "Zephyrine"
SECRET = "8675309X"  # the planted number: patient, order
PLANTED = (PERSON, OTHER, SECRET, PERSON.upper(), "1987", "19870213")
STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def samples(seconds: float = 10, rate: float = RATE) -> dict[str, NDArray[np.int64]]:
    """Counts of all 12 leads."""
    return ecg(seconds, rate)


def eight(signals: Signals) -> dict[str, NDArray[np.int64]]:
    """The 8 leads that carts store when they leave the derived ones out."""
    return {lead: signals[lead] for lead in STORED}


def millivolts(signals: Signals, step: float = STEP) -> NDArray[np.float32]:
    """[12, samples], in the order of `LEADS`."""
    rows = np.stack([signals[lead] for lead in LEADS])
    return (rows * (step / 1000)).astype(np.float32)
