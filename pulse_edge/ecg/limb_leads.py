"""Whether the limb leads are of one heart: Einthoven's and Goldberger's laws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import RecordingError

TOLERANCE = 0.05  # mV: half a small square of a page
# Each law as factors of leads whose sum is 0: all six leads are differences of three electrodes.
LAWS: dict[str, dict[str, float]] = {
    "I + III = II": {"I": 1, "III": 1, "II": -1},
    "aVR + aVL + aVF = 0": {"aVR": 1, "aVL": 1, "aVF": 1},
    "aVR = -(I + II) / 2": {"aVR": 1, "I": 0.5, "II": 0.5},
    "aVL = I - II / 2": {"aVL": 1, "I": -1, "II": 0.5},
    "aVF = II - I / 2": {"aVF": 1, "II": -1, "I": 0.5},
}
_MOST = 0.5  # share of samples
_SHOWN = 2  # laws with their places, the worst first; the others are only named
_SHORTEST = 1.0  # seconds; less may hold no whole beat, and is named only
_BLOCK = 1.0  # seconds; a slow baseline is a line between the medians of such blocks

Row = NDArray[np.float32]


class _Breach(NamedTuple):
    """Where a law fails."""

    law: str
    largest: float  # mV
    first: int  # sample
    last: int
    share: float  # of the samples where it can be checked
    beyond_baseline: float  # share, after a constant or slow difference was removed
    seconds: float  # in which it can be checked

    def __str__(self) -> str:
        return (
            f"{self.law} fails by up to {self.largest:.2f} mV in {self.share:.0%} of samples "
            f"{self.first:,} to {self.last:,}"
        )


def check_limb_leads(
    rows: Mapping[str, Row], rate: float, where: str, tolerance: float = TOLERANCE
) -> tuple[str, ...]:
    """Compare the limb leads with each other, wherever they were recorded at the same time.

    A constant or slow difference is named, however large: filters and electrodes move a lead's
    baseline, which changes no wave.

    Args:
        rows: signals by lead, mV; not finite where nothing was recorded.
        rate: samples per second.
        where: the recording, for messages.
        tolerance: mV by which a law may fail.

    Returns:
        What to say of the leads, a sentence each.

    Raises:
        RecordingError: a law fails in most samples. The leads are mixed up, or not of one ECG.
    """
    breaches = list(_breaches(rows, rate, tolerance))
    for breach in breaches:
        if breach.beyond_baseline > _MOST and breach.seconds >= _SHORTEST:
            raise RecordingError(
                f"{where}: the limb leads are not of one ECG: {breach}; expected within "
                f"{tolerance:g} mV in most samples; check the names and signs of the leads"
            )
    if not breaches:
        return ()
    breaches.sort(key=lambda breach: -breach.largest)
    parts = [str(breach) for breach in breaches[:_SHOWN]]
    if rest := breaches[_SHOWN:]:
        parts.append("so do " + ", ".join(breach.law for breach in rest))
    return (f"Limb leads disagree: {'; '.join(parts)}.",)


def _breaches(rows: Mapping[str, Row], rate: float, tolerance: float) -> Iterator[_Breach]:
    for law, factors in LAWS.items():
        if not factors.keys() <= rows.keys():
            continue
        with np.errstate(invalid="ignore"):  # infinity counts as a gap
            rest = sum(factor * rows[lead].astype(np.float64) for lead, factor in factors.items())
        rest = np.asarray(rest)
        places = np.flatnonzero(np.isfinite(rest))
        rest = rest[places]
        over = np.abs(rest) > tolerance
        if not over.any():
            continue
        broken = places[over]
        steady = min(
            float((np.abs(rest - baseline) > tolerance).mean())
            for baseline in (0.0, np.median(rest), _slow_baseline(rest, rate))
        )
        largest = float(np.abs(rest).max())
        first, last = int(broken[0]), int(broken[-1])
        yield _Breach(law, largest, first, last, float(over.mean()), steady, len(rest) / rate)


def _slow_baseline(signal: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """A line through the medians of blocks of 1 s."""
    blocks = max(1, round(len(signal) / (_BLOCK * rate)))
    parts = np.array_split(signal, blocks)
    ends = np.cumsum([len(part) for part in parts])
    centres = ends - np.array([len(part) for part in parts]) / 2
    return np.interp(np.arange(len(signal)), centres, [float(np.median(part)) for part in parts])
