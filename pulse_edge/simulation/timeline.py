"""When the beats of a simulated recording begin: its rhythm, its blocks and its premature beats."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pulse_edge.simulation.ecg import SECOND, SECONDS, THIRD, EcgSpec
from pulse_edge.simulation.heart import Heart


@dataclass
class Timeline:
    """Events while they are laid out: (QRS onset, kind, PR or NaN) per beat, P onsets, spikes."""

    beats: list[tuple[float, int, float]] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    ectopic_p: list[float] = field(default_factory=list)
    spikes: list[float] = field(default_factory=list)

    def beat(
        self, time: float, kind: int = 0, pr: float = float("nan"), ectopic: bool = False
    ) -> None:
        self.beats.append((time, kind, pr))
        if np.isfinite(pr):
            (self.ectopic_p if ectopic else self.p).append(time - pr)


def _irregular(
    rng: np.random.Generator, rr: float, start: float, spread: tuple[float, float]
) -> list[float]:
    """QRS onsets of atrial fibrillation: log-normal intervals with a coefficient of variation in
    the range `spread`."""
    cv, times = rng.uniform(*spread), [start]
    while times[-1] < SECONDS + 1:
        times.append(times[-1] + max(0.3, rr * float(np.exp(rng.normal(0, cv) - cv * cv / 2))))
    return times


def lay_out(spec: EcgSpec, heart: Heart, rng: np.random.Generator) -> Timeline:
    """The events of a recording of this heart, from before its first sample to after its last."""
    line, rr = Timeline(), 60 / spec.rate_bpm
    pr = float("nan") if spec.pr_ms is None else spec.pr_ms / 1000
    time = -rng.uniform(0.2, 1.0) * rr
    if spec.rhythm == "atrial fibrillation":
        for t in _irregular(rng, rr, time, heart.fibrillation_cv):
            line.beat(t)
    elif THIRD in spec.conduction:
        atrial = 60 / rng.uniform(70, 105)
        line.p.extend(np.arange(-rng.uniform(0.1, 0.9), SECONDS + 1, atrial).tolist())
        while time < SECONDS + 1:
            line.beat(time, 4)
            time += rr * rng.normal(1, 0.008)
    elif SECOND in spec.conduction:
        # Wenckebach: PR grows until a P wave is not followed by a QRS. `rate_bpm` is the
        # ventricular mean.
        cycle = int(rng.integers(3, 6))  # P waves in a group, one of them dropped
        atrial = rr * (cycle - 1) / cycle
        first, step, beat = (
            0.15 + rng.uniform(0, 0.04),
            rng.uniform(0.06, 0.09),
            int(rng.integers(0, cycle)),
        )
        p = -2 * atrial - rng.uniform(0, 1) * atrial
        while p < SECONDS + 1:
            if beat < cycle - 1:
                line.beat(p + first + beat * step, 0, first + beat * step)
            else:
                line.p.append(p)
            p += atrial * rng.normal(1, 0.008)
            beat = (beat + 1) % cycle
    elif spec.rhythm == "ventricular paced rhythm":
        while time < SECONDS + 1:
            line.beat(time, 3, pr)
            line.spikes.append(time - 0.012)
            time += rr * rng.normal(1, 0.003)
    elif spec.rhythm == "sinus arrhythmia":
        depth, breath, phase = (
            rng.uniform(*heart.breath_depth),
            rng.uniform(0.18, 0.28),
            rng.uniform(0, 2 * np.pi),
        )
        while time < SECONDS + 1:
            line.beat(time, 0, pr)
            time += (
                rr * (1 + depth * np.sin(2 * np.pi * breath * time + phase)) * rng.normal(1, 0.01)
            )
    elif spec.rhythm == "atrial flutter":
        while time < SECONDS + 1:
            line.beat(time)
            time += rr * rng.normal(1, 0.006)
    else:
        while time < SECONDS + 1:
            line.beat(time, 0, pr)
            time += rr * rng.normal(1, heart.jitter)
    return _with_ectopy(line, spec, rr, rng)


def _with_ectopy(line: Timeline, spec: EcgSpec, rr: float, rng: np.random.Generator) -> Timeline:
    """Moves beats to their premature time. A ventricular one hides its P wave and is followed by a
    full pause."""
    if spec.ectopy == "none":
        return line
    out = Timeline(spikes=line.spikes)
    inside = [i for i, b in enumerate(line.beats) if 0.8 < b[0] < SECONDS - 0.8]
    if spec.ectopy == "ventricular bigeminy":
        chosen = set(range(int(rng.integers(0, 2)), len(line.beats), 2))
    else:
        count = min(int(rng.integers(1, 4)), max(1, len(inside) // 3))
        chosen = set()
        for i in rng.permutation(inside):
            if len(chosen) < count and not {i - 1, i + 1, i - 2, i + 2} & chosen:
                chosen.add(int(i))
    early = rng.uniform(0.28, 0.4)
    shift = 0.0
    for i, (time, kind, pr) in enumerate(line.beats):
        if i not in chosen:
            out.beat(time + shift, kind, pr)
        elif spec.ectopy == "premature atrial contractions":
            out.beat(time + shift - early * rr, 2, min(pr, 0.16), ectopic=True)
            shift -= 0.6 * early * rr  # the sinus node is reset: a less than compensatory pause
        else:
            out.beat(time - early * rr, 1)
    # Premature atrial beats pulled the later beats earlier: add beats up to the end
    while out.beats and out.beats[-1][0] < SECONDS:
        out.beat(out.beats[-1][0] + rr, 0, line.beats[-1][2])
    return out
