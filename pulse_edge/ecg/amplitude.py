"""Whether amplitudes can be an ECG's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.leads import LEADS
from pulse_edge.errors import RecordingError

# An electrocardiograph takes signals of +-5 mV (ANSI/AAMI EC11 and IEC 60601-2-25).
LARGEST = 5.0  # mV; of at least half of a lead's samples
# An electrode that loosens gives short peaks over 5 mV, in less than 1 % of the samples.
LARGEST_PEAK = 20.0  # mV; of 99 % of a lead's samples
FLAT = 0.05  # mV from least to largest; half a small square of a page
# Noise alone exceeds 0.01 mV, so a smaller signal that is not constant has the wrong unit.
LEAST = 0.01  # mV from least to largest, of the largest lead
PLAUSIBLE = (0.05, 8.0)  # mV from least to largest, of most of a lead
_FACTORS = {1e-3: "0.001", 1e-6: "0.000001", 1e3: "1000", 1e6: "1000000"}


def check_amplitudes(
    signals: NDArray[np.float32], leads: Sequence[str], where: str
) -> tuple[str, ...]:
    """Refuse signals that cannot be an ECG in mV, as signals in microvolts or with an offset.

    Args:
        signals: [leads, samples], mV; not finite where nothing was recorded.
        leads: a name for each row. Only the 12 standard leads are looked at.
        where: the recording, for messages.

    Returns:
        What to say of the signals, a sentence each.

    Raises:
        RecordingError: a lead's signal is outside the range.
    """
    spans: dict[str, float] = {}
    for lead, row in zip(leads, signals, strict=True):
        finite = row[np.isfinite(row)]
        if lead in LEADS and finite.size:
            _check_lead(lead, finite, where)
            spans[lead] = float(finite.max()) - float(finite.min())
    if not spans:
        return ()
    largest = max(spans, key=lambda lead: spans[lead])
    if 0 < spans[largest] < LEAST:
        raise RecordingError(
            f"{where}: the largest lead, {largest}, spans {spans[largest]:.2g} mV; expected at "
            f"least {LEAST:g} mV; signals are mV, scale other units"
            f"{_factor_hint(spans[largest])}"
        )
    if spans[largest] < FLAT:
        return (f"Flat: no lead spans more than {spans[largest]:.2g} mV.",)
    flat = [lead for lead, span in spans.items() if span == 0]
    return (f"Flat: {' '.join(flat)}.",) if flat else ()


def _factor_hint(span: float) -> str:
    """The power of 1,000 by which a signal would be an ECG's, as part of a message; "" if none.

    Args:
        span: of most of the signal, in what was taken for mV.
    """
    for factor, name in _FACTORS.items():
        if PLAUSIBLE[0] <= span * factor <= PLAUSIBLE[1]:
            return f"; a factor of {name} would make them plausible"
    return ""


def _check_lead(lead: str, finite: NDArray[np.float32], where: str) -> None:
    size = np.abs(finite)
    place = min(size.size - 1, round(0.99 * size.size))
    middle = size.size // 2
    ordered = np.partition(size, sorted({middle, place}))
    if ordered[middle] <= LARGEST and ordered[place] <= LARGEST_PEAK:
        return
    low, high = float(finite.min()), float(finite.max())
    if high - low > LARGEST_PEAK:
        hint = "signals are mV, and these look like microvolts or raw counts"
        hint += _factor_hint(float(np.percentile(finite, 99.9) - np.percentile(finite, 0.1)))
    else:
        hint = "remove the lead's offset, or correct its scale"
    raise RecordingError(
        f"{where}: lead {lead} lies between {low:.4g} and {high:.4g} mV; expected -{LARGEST:g} to "
        f"{LARGEST:g} mV; {hint}"
    )
