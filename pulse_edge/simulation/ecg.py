"""Simulated recordings: the findings that one shows, its signal, and the truth about it.

Times are seconds, amplitudes mV, angles degrees, rates bpm.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SECONDS = 10.0

RHYTHMS = (
    "sinus rhythm",
    "sinus bradycardia",
    "sinus tachycardia",
    "sinus arrhythmia",
    "atrial fibrillation",
    "atrial flutter",
    "ventricular paced rhythm",
)
CONDUCTION = (
    "first-degree AV block",
    "second-degree AV block",
    "third-degree AV block",
    "left bundle branch block",
    "right bundle branch block",
)
ECTOPY = (
    "none",
    "premature ventricular contractions",
    "ventricular bigeminy",
    "premature atrial contractions",
)
ST_CHANGES = (
    "none",
    "anterior ST elevation",
    "inferior ST elevation",
    "lateral ST elevation",
    "ST depression",
)
AXES = ("normal axis", "left axis deviation", "right axis deviation")

FIRST, SECOND, THIRD, LBBB, RBBB = CONDUCTION

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EcgSpec:
    """The findings to simulate, and the numbers behind them."""

    rhythm: str = "sinus rhythm"
    rate_bpm: float = 72.0
    pr_ms: float | None = 160.0  # None: no P waves, or none in a fixed relation to QRS complexes
    qrs_ms: float = 90.0
    conduction: tuple[str, ...] = ()
    ectopy: str = "none"
    st: str = "none"
    st_mv: float = 0.0  # magnitude in the most affected leads
    lvh: bool = False
    axis_deg: float = 45.0
    t_scale: float = 1.0  # of the T wave's amplitude
    # ST level as a fraction of the T wave, used if `st` is "none": see `vary_repolarization`
    st_of_t: float = 0.0

    def __post_init__(self) -> None:
        for value, legal in ((self.rhythm, RHYTHMS), (self.ectopy, ECTOPY), (self.st, ST_CHANGES)):
            if value not in legal:
                raise ValueError(f"{value!r} is not one of {legal}")
        if unknown := set(self.conduction) - set(CONDUCTION):
            raise ValueError(f"{sorted(unknown)} are not among {CONDUCTION}")

    @property
    def axis(self) -> str:
        """Frontal axis as a word: normal -30 to 90 degrees, left beyond -30, right beyond 90."""
        return AXES[1] if self.axis_deg < -30 else AXES[2] if self.axis_deg > 90 else AXES[0]


@dataclass(frozen=True)
class Ecg:
    """A simulated recording: `signal` float64 (12, seconds * hz) in mV, and the truth about it,
    times in seconds."""

    spec: EcgSpec
    hz: int
    signal: Floats
    rate_bpm: float  # from the mean interval between the QRS complexes that the recording shows
    qrs: Floats  # (beats,) QRS onsets
    qrs_s: Floats  # (beats,) QRS durations
    # (beats,) 0 conducted, 1 premature ventricular, 2 premature atrial, 3 paced, 4 escape
    kind: NDArray[np.int64]
    pr: Floats  # (beats,) PR interval, NaN where the beat has no P wave of its own
    p: Floats  # (p waves,) P onsets
    spikes: Floats  # (spikes,) pacing spikes
    # (12,) ST level of a conducted beat, 60 ms after J
    st_mv: Floats = field(default_factory=lambda: np.zeros(12))
