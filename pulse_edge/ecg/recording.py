"""A 12-lead recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.amplitude import check_amplitudes
from pulse_edge.ecg.calibration import calibration_notes
from pulse_edge.ecg.cart import CartReport
from pulse_edge.ecg.coverage import coverage_notes, drawn_samples
from pulse_edge.ecg.leads import LEADS, canonical_lead, shown_names
from pulse_edge.ecg.limb_leads import TOLERANCE, check_limb_leads
from pulse_edge.ecg.recorded_file import RecordedFile
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
        tolerance: mV by which the limb leads may break Einthoven's and Goldberger's laws. Coarse
            samples differ by rounding. Infinity takes signals that nobody recorded as they are.
        derived: those of `leads` that were computed from others, not recorded.
        cart: what the file says beside the signals.
        file: that it was read from; None for signals of no file.
    """

    signals: NDArray[np.float32]
    rate: float
    leads: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    derived: tuple[str, ...] = ()
    cart: CartReport = field(default_factory=CartReport)
    file: RecordedFile | None = None

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
        if not self.tolerance >= TOLERANCE:  # also what is no number
            raise RecordingError(
                f"{where}: a tolerance of {self.tolerance} mV; expected at least {TOLERANCE:g} mV"
            )
        leads = tuple(canonical_lead(name) for name in self.leads)
        if len(leads) != signals.shape[0]:
            raise RecordingError(f"{where}: {len(leads)} lead names for {signals.shape[0]} signals")
        signals, leads = _without_repeats(signals, leads, where)
        millivolts = _as_float32(signals, leads, where)
        drawn = millivolts[:, : drawn_samples(self.rate)]
        notes = _findings(drawn, leads, self.rate, where, self.tolerance)
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
    def facts(self) -> dict[str, Any]:
        """What the provenance of an answer says of a recording that was read from a file."""
        return {"rate_hz": self.rate, "derived": list(self.derived), **self.cart.to_dict()}

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


def _findings(
    drawn: NDArray[np.float32], leads: tuple[str, ...], rate: float, where: str, tolerance: float
) -> tuple[str, ...]:
    """What to say of signals that are drawn. Raises `RecordingError` if they cannot be an ECG."""
    # First the amplitudes: a wrong unit breaks the laws of the limb leads as well.
    amplitudes = check_amplitudes(drawn, leads, where)
    laws = check_limb_leads(dict(zip(leads, drawn, strict=True)), rate, where, tolerance)
    return (*laws, *calibration_notes(drawn, rate, leads), *amplitudes)


def _as_float32(
    signals: NDArray[np.generic], leads: tuple[str, ...], where: str
) -> NDArray[np.float32]:
    """The same values as float32. Raises `RecordingError` for those that are too large for it."""
    with np.errstate(over="ignore"):
        millivolts = np.ascontiguousarray(signals, dtype=np.float32)
    lost = np.isinf(millivolts) & np.isfinite(signals)
    if lost.any():
        row, column = np.argwhere(lost)[0]
        raise RecordingError(
            f"{where}: lead {shown_names([leads[row]])} has the value {signals[row, column]:.3g} "
            "mV; expected mV of an ECG; signals are mV, scale other units"
        )
    return millivolts


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
            and len(set(signals[row][:1000].tolist())) > 1
        ):
            different.append(lead)
    if different:
        names = shown_names(sorted(set(different)))
        raise RecordingError(f"{where}: more than one signal is named {names}")
    if len(first) == len(leads):
        return signals, leads
    return signals[list(first.values())], tuple(first)
