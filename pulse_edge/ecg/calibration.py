"""Calibration pulses, which carts record before or after an ECG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.leads import shown_names

Signals = NDArray[np.float32]
Spans = list[tuple[int, int]]  # first sample, and the one after the last

HEIGHT = 1.0  # mV
_HEIGHTS = (0.9, 1.1)  # mV
_DRIFT = 0.3  # mV by which the foot may lie off the lead's median
_WIDTHS = (0.06, 0.6)  # seconds
_EDGE = 0.01  # seconds from foot to top. The upstroke of a QRS complex takes longer.
_FLAT = 0.01  # mV from sample to sample on the top
_ENDS = 1.5  # seconds at either end of a lead, where a pulse may lie
_SHORTEST = 3.0  # seconds of a lead; a shorter one is all ends


def without_calibration(
    signals: Signals, rate: float, leads: Sequence[str]
) -> tuple[Signals, tuple[str, ...]]:
    """Blank the calibration pulses at a recording's ends, and cut what is blank in every lead.

    A pulse is rectangular, 1 mV high, and alone: rectangles that repeat are the signal.

    Args:
        signals: [leads, samples], mV; not finite where nothing was recorded.
        rate: samples per second.
        leads: a name for each row.

    Returns:
        The signals, and what to say of them.
    """
    cuts = _shared([_pulse_spans(row, rate) for row in signals])
    if not any(cuts):
        return signals, ()
    signals = signals.copy()
    for row, spans in zip(signals, cuts, strict=True):
        for first, last in spans:
            row[first:last] = np.nan
    kept = np.flatnonzero(np.isfinite(signals).any(axis=0))
    if kept.size:
        signals = signals[:, kept[0] : kept[-1] + 1]
    return signals, (_note("cut", cuts, leads),)


def _shared(cuts: Sequence[Spans]) -> Sequence[Spans]:
    """The spans to blank: those that over half of the leads have are blanked in all of them.

    A cart feeds its pulse to every lead at once, but a baseline that moves hides it in some.
    """
    counts = Counter(span for spans in cuts for span in spans)
    common = {span for span, count in counts.items() if 2 * count > len(cuts) > 2}
    return [sorted({*spans, *common}) for spans in cuts]


def calibration_notes(signals: Signals, rate: float, leads: Sequence[str]) -> tuple[str, ...]:
    """What to say of calibration pulses that are left where they are: nothing, or a sentence.

    Args:
        signals: see `without_calibration`.
        rate: samples per second.
        leads: a name for each row.
    """
    cuts = [_pulse_spans(row, rate) for row in signals]
    return (_note("drawn", cuts, leads),) if any(cuts) else ()


def _note(fate: str, cuts: Sequence[Spans], leads: Sequence[str]) -> str:
    first = min(first for spans in cuts for first, _ in spans)
    last = max(last for spans in cuts for _, last in spans)
    pulsed = [lead for lead, spans in zip(leads, cuts, strict=True) if spans]
    return f"Calibration pulse {fate}, in samples {first:,} to {last - 1:,}: {shown_names(pulsed)}."


def _pulse_spans(row: Signals, rate: float) -> Spans:
    """What to blank of a lead: from its beginning to a pulse's end, or from a pulse to its end."""
    finite = np.flatnonzero(np.isfinite(row))
    if finite.size < _SHORTEST * rate:
        return []
    begin, end = int(finite[0]), int(finite[-1]) + 1
    pulses = _rectangles(row[begin:end], rate)
    length = end - begin
    leading = [pulse for pulse in pulses if pulse[0] < _ENDS * rate]
    trailing = [pulse for pulse in pulses if pulse[1] > length - _ENDS * rate]
    if len(leading) > 1 or len(trailing) > 1 or len(leading) + len(trailing) != len(pulses):
        return []
    spans = [(begin, begin + last) for _, last in leading]
    return spans + [(begin + first, end) for first, _ in trailing]


def _rectangles(row: Signals, rate: float) -> list[tuple[int, int]]:
    """The rectangles of 1 mV in a lead: their first sample and the one after their last."""
    edge = max(1, round(_EDGE * rate))
    with np.errstate(invalid="ignore"):
        level = np.abs(np.diff(row)) <= _FLAT
    turns = np.flatnonzero(np.diff(np.concatenate([[False], level, [False]]).astype(np.int8)))
    runs = turns.reshape(-1, 2)  # the first and last sample of each level stretch
    widths = (runs[:, 1] - runs[:, 0] + 1) / rate
    runs = runs[(widths >= _WIDTHS[0]) & (widths <= _WIDTHS[1])]
    rest = float(np.nanmedian(row))
    pulses = []
    for first, last in runs.tolist():
        steps = []
        if first > 0:
            steps.append(row[first] - row[max(0, first - edge)])
        if last < len(row) - 1:
            steps.append(row[last] - row[min(len(row) - 1, last + edge)])
        risen = abs(float(row[first]) - rest - HEIGHT) <= _DRIFT
        if steps and risen and all(_HEIGHTS[0] <= step <= _HEIGHTS[1] for step in steps):
            pulses.append((first, last + 1))
    return pulses
