"""Stretches of leads, as files store them, put together into one recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.calibration import without_calibration
from pulse_edge.ecg.cart import CartReport
from pulse_edge.ecg.coverage import drawn_samples
from pulse_edge.ecg.derived import with_derived_leads
from pulse_edge.ecg.leads import LEADS, shown_names
from pulse_edge.ecg.limb_leads import TOLERANCE
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import RecordingError

# A rhythm strip has its own filter, so a lead stored in two groups may differ in height. Share of
# the lead's own size, both as root mean squares.
SIMILAR = 0.2
MAX_SAMPLES = 32 << 20  # of all leads together: 128 MiB
_RATE_TOLERANCE = 1e-6  # relative


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of one lead.

    Attributes:
        lead: its name, one of `LEADS` or another.
        start: seconds from the beginning of the recording; not negative.
        rate: samples per second.
        signal: mV; not finite where nothing was recorded.
        step: mV of a sample's last bit.
        group: which stretches were recorded together, counted from 1.
    """

    lead: str
    start: float
    rate: float
    signal: NDArray[np.float32]
    step: float
    group: int


def recording_of_segments(
    segments: Sequence[Segment],
    source: str,
    notes: tuple[str, ...] = (),
    cart: CartReport | None = None,
    derive: bool = False,
) -> Recording:
    """One recording of stretches that may follow each other, overlap and differ in rate.

    A lower rate is brought to the highest by straight lines, which are what a page shows between
    samples. Only what a page shows is kept: the first 10 s.

    Args:
        segments: at least one; the order of the leads is theirs.
        source: the file, for messages.
        notes: what its reader left out, a sentence each.
        cart: what the file says beside the signals.
        derive: whether limb leads that are absent are computed from others.

    Raises:
        RecordingError: the stretches contradict each other, or cannot be an ECG.
    """
    rate = max(segment.rate for segment in segments)
    by_lead: dict[str, list[Segment]] = {}
    for segment in segments:
        by_lead.setdefault(segment.lead, []).append(segment)
    seconds = max(segment.start + len(segment.signal) / segment.rate for segment in segments)
    length = max(1, min(round(seconds * rate), drawn_samples(rate)))
    if length * len(by_lead) > MAX_SAMPLES:
        raise RecordingError(
            f"{source}: {len(by_lead)} leads of {length:,} samples; expected at most "
            f"{MAX_SAMPLES:,} in all; store fewer leads, or at a lower rate"
        )
    signals = {}
    for lead, parts in by_lead.items():
        if lead not in LEADS:  # not drawn, so it does not matter whether they are equal
            parts = parts[:1]
        parts = [_at_rate(part, rate, source) for part in parts]
        signals[lead], said = _joined(parts, length, source)
        notes += said
    rows, said = without_calibration(np.stack(list(signals.values())), rate, tuple(signals))
    signals = dict(zip(signals, rows, strict=True))
    derived: tuple[str, ...] = ()
    if derive:
        signals, derived = with_derived_leads(signals)
    step = max((segment.step for segment in segments if segment.lead in LEADS[:6]), default=0.0)
    tolerance = max(TOLERANCE, 2 * step)
    notes += said
    if derived:
        notes += (f"Derived from other leads, not recorded: {' '.join(derived)}.",)
    cart = cart or CartReport()
    return Recording(
        np.stack(list(signals.values())),
        rate,
        tuple(signals),
        source,
        (*notes, *cart.notes),
        tolerance,
        derived,
        cart,
    )


def _begin(segment: Segment) -> int:
    """The segment's first sample. Less than half a sample is lost, which no page shows."""
    return round(segment.start * segment.rate)


def _at_rate(segment: Segment, rate: float, source: str) -> Segment:
    factor = round(rate / segment.rate)
    if abs(rate / segment.rate - factor) > _RATE_TOLERANCE * factor:
        raise RecordingError(
            f"{source}: lead {shown_names([segment.lead])} was sampled at {segment.rate:g} Hz, "
            f"others at {rate:g} Hz; expected one rate, or multiples of it"
        )
    if factor == 1:
        return segment
    signal = segment.signal
    finer = np.full((len(signal) - 1) * factor + 1, np.nan, np.float32)
    finer[::factor] = signal
    with np.errstate(invalid="ignore"):  # infinity counts as a gap
        slope = np.diff(signal) / np.float32(factor)
        for step in range(1, factor):
            finer[step::factor] = signal[:-1] + slope * np.float32(step)
    return Segment(segment.lead, segment.start, rate, finer, segment.step, segment.group)


def _joined(
    parts: Sequence[Segment], length: int, source: str
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """A lead of `length` samples from its stretches, the longest first; and what to say of it."""
    parts = sorted(parts, key=lambda part: -len(part.signal))
    row = np.full(length, np.nan, np.float32)
    owner = np.zeros(length, np.int32)  # the group of each sample; 0: none
    notes: tuple[str, ...] = ()
    for part in parts:
        begin = _begin(part)
        span = slice(begin, begin + len(part.signal))
        old = row[span]
        new = part.signal[: len(old)]
        both = np.isfinite(old) & np.isfinite(new)
        if both.any():
            step = max(other.step for other in parts)
            same_group = bool((owner[span][both] == part.group).any())
            notes += _repeat_notes(part, old[both], new[both], step, same_group, source)
        free = ~np.isfinite(old) & np.isfinite(new)
        old[free] = new[free]
        owner[span][free] = part.group
    return row, notes


def _repeat_notes(
    part: Segment,
    old: NDArray[np.float32],
    new: NDArray[np.float32],
    step: float,
    same_group: bool,
    source: str,
) -> tuple[str, ...]:
    """What to say of a lead that is stored twice.

    Raises:
        RecordingError: the two are different signals.
    """
    apart = old.astype(np.float64) - new
    largest = float(np.abs(apart).max())
    if largest <= 1.01 * step:
        return ()
    lead = shown_names([part.lead])
    size = math.sqrt(float(np.var(old)))
    if same_group or math.sqrt(float(np.mean(apart**2))) > SIMILAR * size:
        raise RecordingError(
            f"{source}: more than one signal is named {lead}, and they differ by up to "
            f"{largest:.2f} mV; expected one, or equal ones; check the names of the leads"
        )
    return (f"{lead} is stored twice, up to {largest:.2f} mV apart; the longer one is drawn.",)
