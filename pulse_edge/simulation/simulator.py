"""A 12-lead ECG simulator with ground truth.

This is not a physiological model. Classes keep a margin (a constant PR is never 190-220 ms), and
their frequencies are not those of a clinic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pulse_edge.simulation.ecg import LBBB, SECONDS, THIRD, Ecg, EcgSpec, Floats
from pulse_edge.simulation.heart import Beat, Heart, lead_vector
from pulse_edge.simulation.timeline import Timeline, lay_out

_TO_12 = np.zeros((12, 8))  # from the independent leads I, II, V1..V6
_TO_12[0, 0] = _TO_12[1, 1] = 1
_TO_12[2, :2] = -1, 1
_TO_12[3, :2] = -0.5, -0.5
_TO_12[4, :2] = 1, -0.5
_TO_12[5, :2] = -0.5, 1
_TO_12[6:, 2:] = np.eye(6)


class _Signal:
    """A recording while waves are added to it.

    Attributes:
        time: (samples,) in seconds.
        mv: (8, samples) on I, II, V1..V6.
    """

    def __init__(self, hz: int) -> None:
        count = int(SECONDS * hz)
        self._hz = hz
        self.time = np.arange(count) / hz
        self.mv = np.zeros((8, count))

    def _samples(self, start: float, stop: float) -> slice:
        """The samples between two times, in seconds; empty outside of the recording."""
        first = max(0, int(start * self._hz))
        return slice(first, max(first, min(len(self.time), int(stop * self._hz))))

    def add_beat(self, beat: Beat, at: float) -> None:
        """Add a beat with its QRS onset at a time."""
        part = self._samples(at - 0.06, at + (beat.t_peak + 0.3))
        if part.start < part.stop:
            self.mv[:, part] += beat.render(self.time[part] - at)

    def add_wave(
        self,
        at: float,
        seconds: float,
        amplitude: Floats,
        shape: Callable[[Floats, float, Floats], Floats],
    ) -> None:
        """Add a P wave of some length with these amplitudes (8,) in mV; `shape` as
        `Heart.p_shape`."""
        part = self._samples(at - 0.05, at + seconds + 0.05)
        if part.start < part.stop:
            from_middle = self.time[part] - at - seconds / 2
            self.mv[:, part] += shape(from_middle, seconds, amplitude)

    def add_spike(self, at: float, amplitude: Floats) -> None:
        """Add a pacing spike, 4 ms wide, with these amplitudes (8,) in mV."""
        first = round(at * self._hz)
        stop = min(len(self.time), first + max(1, self._hz // 250))
        self.mv[:, max(0, first) : max(0, stop)] += amplitude[:, None]


def simulate(
    spec: EcgSpec,
    seed: int,
    hz: int = 500,
    make_heart: Callable[[EcgSpec, np.random.Generator], Heart] = Heart,
) -> Ecg:
    """One noise-free recording of ten seconds. The same arguments give the same samples.

    Args:
        spec: the findings.
        seed: of the heart and its rhythm.
        hz: samples per second.
        make_heart: gives the shapes of beats.
    """
    rng = np.random.default_rng([seed, 1])
    heart = make_heart(spec, rng)
    line = lay_out(spec, heart, rng)
    signal = _Signal(hz)
    widths = []
    for onset, kind, _ in line.beats:
        beat, width = _beat(heart, spec, kind)
        widths.append(width)
        signal.add_beat(beat, onset)
    for at in line.p:
        signal.add_wave(at, heart.p_s, heart.p_wave(), heart.p_shape)
    ectopic = heart.p_wave() * np.array([1, -0.4, 1.4, 1, 1, 1, 1, 1])
    for at in line.ectopic_p:
        signal.add_wave(at, heart.p_s * 0.85, ectopic, heart.p_shape)
    chest = heart.spike * np.array([-0.8, -1, -0.9, -0.7, -0.5, -0.4])
    spike = lead_vector(heart.spike, spec.axis_deg, chest)
    for at in line.spikes:
        signal.add_spike(at, spike)
    if spec.rhythm == "atrial fibrillation":
        signal.mv += heart.fibrillation(signal.time, rng)
    if spec.rhythm == "atrial flutter":
        onsets = np.array([onset for onset, _, _ in line.beats])
        signal.mv += heart.flutter(signal.time, onsets, rng)
    return _with_truth(_TO_12 @ signal.mv, hz, spec, heart, line, np.array(widths))


def _beat(heart: Heart, spec: EcgSpec, kind: int) -> tuple[Beat, float]:
    """A beat of a kind (see `Ecg.kind`), and the seconds of its QRS complex."""
    rr = 60 / spec.rate_bpm
    seconds = spec.qrs_ms / 1000
    if kind == 1:
        return heart.wide(rr, heart.pvc_s, heart.pvc_axis, heart.pvc_sign), heart.pvc_s
    if kind == 3:
        return heart.wide(rr, seconds, spec.axis_deg, -1.0), seconds
    if kind == 4 and THIRD in spec.conduction and spec.qrs_ms >= 120:
        return heart.wide(rr, seconds, spec.axis_deg, heart.pvc_sign), seconds
    return heart.normal(rr), seconds


def _with_truth(
    signal: Floats, hz: int, spec: EcgSpec, heart: Heart, line: Timeline, widths: Floats
) -> Ecg:
    """The signal (12, samples) with its ground truth: the events that lie inside the recording."""
    onsets = np.array([onset for onset, _, _ in line.beats])
    seen = (onsets >= 0) & (onsets + 0.1 < SECONDS)
    shown = onsets[seen]
    rate = 60 * (len(shown) - 1) / (shown[-1] - shown[0]) if len(shown) > 1 else spec.rate_bpm
    p = np.sort(np.array(line.p + line.ectopic_p, dtype=np.float64))
    wide_or_special = LBBB in spec.conduction or spec.rhythm == "ventricular paced rhythm"
    return Ecg(
        spec=spec,
        hz=hz,
        signal=signal,
        rate_bpm=float(rate),
        qrs=shown,
        qrs_s=widths[seen],
        kind=np.array([kind for _, kind, _ in line.beats], dtype=np.int64)[seen],
        pr=np.array([pr for _, _, pr in line.beats])[seen],
        p=p[(p >= 0) & (p < SECONDS)],
        spikes=np.array([at for at in line.spikes if 0 <= at < SECONDS]),
        st_mv=np.zeros(12) if wide_or_special else _TO_12 @ heart.st,
    )
