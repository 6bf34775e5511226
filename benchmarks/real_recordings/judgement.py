"""Which statements about a recording contradict what is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.real_recordings.known import KnownRecording
from pulse_edge.ecg.recording import Recording
from pulse_edge.known import QUANTITIES
from pulse_edge.panels.measurements import report_measurements
from pulse_edge.panels.rhythm_findings import RHYTHM
from pulse_edge.panels.statements import parse_statements, sentences

TOLERANCES = {"heart rate": 5.0, "PR interval": 20.0, "QRS duration": 20.0, "QT interval": 40.0}
WIDE_QRS = 120.0  # ms, from which on conduction is abnormal
NORMAL_AXIS = (-30.0, 90.0)  # degrees
AXES = ("normal axis", "left axis deviation", "right axis deviation", "extreme axis deviation")
RHYTHMS = frozenset(finding.name for finding in RHYTHM)
OPPOSITES = ("normal ECG", "abnormal ECG")


@dataclass(frozen=True)
class WrongStatement:
    """A sentence of the model, and what it contradicts."""

    sentence: str
    reason: str


def heart_rate(recording: Recording) -> tuple[float, str]:
    """(beats a minute, who says so): the cart's rate, or its RR interval, or counted beats."""
    cart = recording.cart.measurements
    if "heart rate" in cart:
        return cart["heart rate"], "cart"
    if "RR interval" in cart:
        return 60_000 / cart["RR interval"], "cart's RR interval"
    return counted_rate(recording), "counted in the signal"


def counted_rate(recording: Recording) -> float:
    """Beats a minute, by the median distance of the steepest places of all leads."""
    hz = recording.rate
    steep = np.abs(np.diff(np.nan_to_num(recording.signals), axis=1)).sum(axis=0)
    width = max(1, round(0.1 * hz))
    energy = np.convolve(steep, np.ones(width) / width, "same")
    above = energy > 0.5 * np.quantile(energy, 0.995)
    starts = np.flatnonzero(np.diff(above.astype(int)) > 0)
    beats = [starts[0]]
    for start in starts[1:]:
        if start - beats[-1] > 0.25 * hz:
            beats.append(start)
    return float(60 * hz / np.median(np.diff(beats)))


def axis_finding(degrees: float) -> str:
    """The finding that an axis of the QRS complex is."""
    if NORMAL_AXIS[0] <= degrees <= NORMAL_AXIS[1]:
        return AXES[0]
    if -90 <= degrees < NORMAL_AXIS[0]:
        return AXES[1]
    return AXES[2] if NORMAL_AXIS[1] < degrees <= 180 else AXES[3]


def wrong_statements(
    texts: Iterable[str], known: KnownRecording, measured: Mapping[str, float]
) -> list[WrongStatement]:
    """Sentences that contradict what is known, or each other. Each is listed once.

    Args:
        texts: answers about the recording.
        known: what is stated of it.
        measured: values by name, in the units of `QUANTITIES`.
    """
    spoken = dict.fromkeys(text[slice(*span)].strip() for text in texts for span in sentences(text))
    wrong = []
    for sentence in spoken:
        reasons = [*_wrong_findings(sentence, known, measured), *_wrong_values(sentence, measured)]
        if reasons:
            wrong.append(WrongStatement(sentence, "; ".join(dict.fromkeys(reasons))))
    listed = {statement.sentence for statement in wrong}
    stated = {name: said for said in spoken for name in _findings_in(said, "stated")}
    if all(name in stated for name in OPPOSITES):
        pair = [stated[name] for name in OPPOSITES]
        if not listed & set(pair):
            wrong.append(WrongStatement(" / ".join(pair), "they contradict each other"))
    return wrong


def _wrong_findings(
    sentence: str, known: KnownRecording, measured: Mapping[str, float]
) -> Iterator[str]:
    stated = _findings_in(sentence, "stated")
    negated = _findings_in(sentence, "negated")
    for name in stated:
        if name in known.absent:
            yield known.absent[name]
        if name in RHYTHMS and known.rhythm not in (None, name):
            yield f"the rhythm is {known.rhythm}"
        axis = measured.get("QRS axis")
        if name in AXES and axis is not None and name != axis_finding(axis):
            yield f"the axis is {axis:.0f} degrees"
    for name in negated:
        if name in known.present:
            yield known.present[name]
        elif name == "conduction abnormality" and measured.get("QRS duration", 0) >= WIDE_QRS:
            yield f"the QRS duration is {measured['QRS duration']:.0f} ms"


def _wrong_values(sentence: str, measured: Mapping[str, float]) -> Iterator[str]:
    for value in report_measurements(sentence, "report"):
        tolerance = TOLERANCES.get(value.name)
        if tolerance is None or value.value is None or value.name not in measured:
            continue
        true = measured[value.name]
        if abs(value.value - true) > tolerance:
            unit = QUANTITIES[value.name].unit
            yield f"the {value.name} is {true:.0f}{'' if unit == '/min' else ' '}{unit}"


def _findings_in(sentence: str, status: str) -> list[str]:
    return [each.finding for each in parse_statements(sentence) if each.status == status]
