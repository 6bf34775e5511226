"""A 12-lead recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.amplitude import check_amplitudes
from pulse_edge.ecg.coverage import coverage_notes, drawn_samples
from pulse_edge.ecg.leads import LEADS, canonical_lead, shown_names
from pulse_edge.errors import RecordingError

__all__ = ["LEADS", "Recording", "canonical_lead", "check_rate"]

RATES = (1, 1_000_000)  # Hz


@dataclass(frozen=True, eq=False)
class Recording:
    """Simultaneous leads of one ECG.

    Raises `RecordingError` for what is no recording.

    Attributes:
        signals: float32 [leads, samples], mV; NaN (or infinity) where nothing was recorded.
        rate: samples per second.
        leads: a name for each row. The usual spellings of the 12 standard leads become those of
            `LEADS`; other leads are kept but not drawn. A row that repeats another is dropped.
        source: where it came from, for messages.
        notes: what its reader left out or doubts, a sentence each, and what a page of it will not
            show. Said with every answer.
    """

    signals: NDArray[np.float32]
    rate: float
    leads: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = self.source or "recording"
        signals: NDArray[np.generic] = np.asarray(self.signals)
        if signals.ndim != 2 or signals.dtype.kind not in "fiu":
            got = f"{signals.dtype} {list(signals.shape)}"
            raise RecordingError(
                f"{where}: signals are {got}; expected real numbers [leads, samples]"
            )
        if signals.shape[0] == 0:
            raise RecordingError(f"{where}: the recording holds no leads")
        if signals.shape[1] == 0:
            raise RecordingError(f"{where}: the recording holds no samples")
        check_rate(self.rate, where)
        leads = tuple(canonical_lead(name) for name in self.leads)
        if len(leads) != signals.shape[0]:
            raise RecordingError(f"{where}: {len(leads)} lead names for {signals.shape[0]} signals")
        signals, leads = _without_repeats(signals, leads, where)
        # Values too large for float32 become infinite, which counts as a gap.
        with np.errstate(over="ignore"):
            millivolts = np.ascontiguousarray(signals, dtype=np.float32)
        drawn = millivolts[:, : drawn_samples(self.rate)]
        notes = check_amplitudes(drawn, leads, where)
        notes += coverage_notes(drawn, leads, self.rate, millivolts.shape[1] / self.rate)
        object.__setattr__(self, "signals", millivolts)
        object.__setattr__(self, "rate", float(self.rate))
        object.__setattr__(self, "leads", leads)
        # `dataclasses.replace` hands in the notes of the recording that it copies.
        object.__setattr__(self, "notes", tuple(dict.fromkeys((*self.notes, *notes))))

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return float(self.signals.shape[1] / self.rate)

    @property
    def missing(self) -> tuple[str, ...]:
        """Those of the 12 standard leads that are absent, or hold no finite sample."""
        recorded = {
            lead
            for lead, row in zip(self.leads, self.signals, strict=True)
            if np.isfinite(row).any()
        }
        return tuple(lead for lead in LEADS if lead not in recorded)


def check_rate(rate: float, where: str) -> None:
    """Refuse a sampling rate outside `RATES`.

    Args:
        rate: samples per second.
        where: the recording, for messages.

    Raises:
        RecordingError: the rate is not accepted.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise RecordingError(f"{where}: a sampling rate of {rate} Hz; expected 1 to {RATES[1]:,}")


def _without_repeats(
    signals: NDArray[np.generic], leads: tuple[str, ...], where: str
) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """The first row of each name, if the others of that name are equal to it."""
    first: dict[str, int] = {}
    different = []
    for row, lead in enumerate(leads):
        known = first.setdefault(lead, row)
        # Two constant rows are equal whatever they are, so they prove nothing.
        if known != row and not (
            np.array_equal(signals[known], signals[row], equal_nan=signals.dtype.kind == "f")
            and len(np.unique(signals[row][:1000])) > 1
        ):
            different.append(lead)
    if different:
        names = shown_names(sorted(set(different)))
        raise RecordingError(f"{where}: more than one signal is named {names}")
    if len(first) == len(leads):
        return signals, leads
    return signals[list(first.values())], tuple(first)
