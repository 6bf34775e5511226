"""A 12-lead recording."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_edge.errors import RecordingError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True, eq=False)
class Recording:
    """Simultaneous leads of one ECG.

    Raises `RecordingError` for what is no recording.

    Attributes:
        signals: float32 [leads, samples], mV; NaN (or infinity) where nothing was recorded.
        rate: samples per second.
        leads: a name for each row. The usual spellings of the 12 standard leads become those of
            `LEADS`; other leads are kept but not drawn.
        source: where it came from, for messages.
        notes: what its reader left out or doubts, a sentence each. Said with every answer.
    """

    signals: NDArray[np.float32]
    rate: float
    leads: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = self.source or "recording"
        signals = np.asarray(self.signals)
        if signals.ndim != 2 or signals.dtype.kind not in "fiu":
            got = f"{signals.dtype} {list(signals.shape)}"
            raise RecordingError(
                f"{where}: signals are {got}; expected real numbers [leads, samples]"
            )
        if signals.shape[0] == 0:
            raise RecordingError(f"{where}: the recording holds no leads")
        if signals.shape[1] == 0:
            raise RecordingError(f"{where}: the recording holds no samples")
        if not 1 <= self.rate <= 1e6:
            raise RecordingError(
                f"{where}: a sampling rate of {self.rate} Hz; expected 1 to 1,000,000"
            )
        leads = tuple(canonical_lead(name) for name in self.leads)
        if len(leads) != signals.shape[0]:
            raise RecordingError(f"{where}: {len(leads)} lead names for {signals.shape[0]} signals")
        if twice := sorted({lead for lead in leads if leads.count(lead) > 1}):
            raise RecordingError(f"{where}: more than one signal is named {', '.join(twice)}")
        # Values too large for float32 become infinite, which counts as a gap.
        with np.errstate(over="ignore"):
            object.__setattr__(self, "signals", np.ascontiguousarray(signals, dtype=np.float32))
        object.__setattr__(self, "rate", float(self.rate))
        object.__setattr__(self, "leads", leads)

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


_LEAD_NAME = re.compile(
    r"(?:MDC_ECG_LEAD_|(?:ECG\s+)?lead[\s_:]*)?(III|II|I|aV[RLF]|V[1-6])\s*(?:\(.*\))?",
    re.IGNORECASE,
)
_BY_LOWER = {lead.lower(): lead for lead in LEADS}


def canonical_lead(name: str) -> str:
    """`"Lead I (Einthoven)"`, `"AVR"`, `"MDC_ECG_LEAD_V1"` -> `"I"`, `"aVR"`, `"V1"`; other names
    stay."""
    match = _LEAD_NAME.fullmatch(name.strip())
    return _BY_LOWER[match[1].lower()] if match else name.strip()
