"""A 12-lead ECG simulator with ground truth.

A beat is a sum of Gaussian waves (P, Q, R, S, T and their pathological variants), as in McSharry et
al., "A dynamical model for generating synthetic electrocardiogram signals", IEEE TBME 2003; here
every wave also has an amplitude per lead. Limb leads come from a frontal-plane vector (magnitude,
angle), so Einthoven's and Goldberger's relations hold exactly; precordial leads have their own
amplitudes. Times are seconds, amplitudes mV, angles degrees, rates bpm.

This is not a physiological model. Classes keep a margin (a constant PR is never 190-220 ms), and
their frequencies are not those of a clinic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SECONDS = 10.0

RHYTHMS = (
    "sinus rhythm",
    "sinus bradycardia",
    "sinus tachycardia",
    "sinus arrhythmia",
    "atrial fibrillation",
    "atrial flutter",
    "ventricular paced rhythm",
)
CONDUCTION = (
    "first-degree AV block",
    "second-degree AV block",
    "third-degree AV block",
    "left bundle branch block",
    "right bundle branch block",
)
ECTOPY = (
    "none",
    "premature ventricular contractions",
    "ventricular bigeminy",
    "premature atrial contractions",
)
ST_CHANGES = (
    "none",
    "anterior ST elevation",
    "inferior ST elevation",
    "lateral ST elevation",
    "ST depression",
)
AXES = ("normal axis", "left axis deviation", "right axis deviation")

FIRST, SECOND, THIRD, LBBB, RBBB = CONDUCTION

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EcgSpec:
    """The findings to simulate, and the numbers behind them."""

    rhythm: str = "sinus rhythm"
    rate_bpm: float = 72.0
    pr_ms: float | None = 160.0  # None: no P waves, or none in a fixed relation to QRS complexes
    qrs_ms: float = 90.0
    conduction: tuple[str, ...] = ()
    ectopy: str = "none"
    st: str = "none"
    st_mv: float = 0.0  # magnitude in the most affected leads
    lvh: bool = False
    axis_deg: float = 45.0
    t_scale: float = 1.0  # of the T wave's amplitude
    # ST level as a fraction of the T wave, used if `st` is "none": see `vary_repolarization`
    st_of_t: float = 0.0

    def __post_init__(self) -> None:
        for value, legal in ((self.rhythm, RHYTHMS), (self.ectopy, ECTOPY), (self.st, ST_CHANGES)):
            if value not in legal:
                raise ValueError(f"{value!r} is not one of {legal}")
        if unknown := set(self.conduction) - set(CONDUCTION):
            raise ValueError(f"{sorted(unknown)} are not among {CONDUCTION}")

    @property
    def axis(self) -> str:
        """Frontal axis as a word: normal -30 to 90 degrees, left beyond -30, right beyond 90."""
        return AXES[1] if self.axis_deg < -30 else AXES[2] if self.axis_deg > 90 else AXES[0]


@dataclass(frozen=True)
class Ecg:
    """A simulated recording: `signal` float64 (12, seconds * hz) in mV, and the truth about it,
    times in seconds."""

    spec: EcgSpec
    hz: int
    signal: Floats
    rate_bpm: float  # from the mean interval between the QRS complexes that the recording shows
    qrs: Floats  # (beats,) QRS onsets
    qrs_s: Floats  # (beats,) QRS durations
    # (beats,) 0 conducted, 1 premature ventricular, 2 premature atrial, 3 paced, 4 escape
    kind: NDArray[np.int64]
    pr: Floats  # (beats,) PR interval, NaN where the beat has no P wave of its own
    p: Floats  # (p waves,) P onsets
    spikes: Floats  # (spikes,) pacing spikes
    # (12,) ST level of a conducted beat, 60 ms after J
    st_mv: Floats = field(default_factory=lambda: np.zeros(12))


_TO_12 = np.zeros((12, 8))  # from the independent leads I, II, V1..V6
_TO_12[0, 0] = _TO_12[1, 1] = 1
_TO_12[2, :2] = -1, 1
_TO_12[3, :2] = -0.5, -0.5
_TO_12[4, :2] = 1, -0.5
_TO_12[5, :2] = -0.5, 1
_TO_12[6:, 2:] = np.eye(6)


def lead_vector(magnitude: float, degrees: float, chest: tuple[float, ...] | Floats) -> Floats:
    """(8,) amplitudes in mV on I, II, V1..V6 of a wave with this frontal vector and these
    precordial amplitudes."""
    angle = np.deg2rad(degrees)
    return np.concatenate(
        [[magnitude * np.cos(angle), magnitude * np.cos(angle - np.pi / 3)], chest]
    )


@dataclass(frozen=True)
class Beat:
    """Waves of one beat, times relative to QRS onset: centres and sigmas (k,), amplitudes (k, 8);
    ST level (8,). `skew` (k,) is the sigma after a wave's centre over that before it."""

    centre: Floats
    sigma: Floats
    amplitude: Floats
    st: Floats
    j: float  # end of QRS
    t_peak: float
    skew: Floats | None = None  # None: all waves are symmetric

    def render(self, time: Floats) -> Floats:
        """(n,) times relative to QRS onset -> (8, n) mV."""
        after = time[None] - self.centre[:, None]
        sigma = self.sigma[:, None]
        if self.skew is not None:
            sigma = np.where(after > 0, sigma * self.skew[:, None], sigma)
        bumps = np.exp(-0.5 * (after / sigma) ** 2)
        out = self.amplitude.T @ bumps
        if self.st.any():  # a plateau from the J point that fades into the T wave
            rise = 1 / (1 + np.exp(-np.clip((time - self.j) / 0.006, -60, 60)))
            fall = 1 / (1 + np.exp(np.clip((time - self.t_peak - 0.02) / 0.03, -60, 60)))
            out = out + self.st[:, None] * (rise * fall)
        return out


def _waves(*rows: tuple[float, float, Floats]) -> tuple[Floats, Floats, Floats]:
    return (
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.stack([r[2] for r in rows]),
    )


# Precordial amplitudes V1..V6 in mV.
_Q = np.array([0, 0, 0, -0.02, -0.06, -0.09])
_R = np.array([0.22, 0.42, 0.75, 1.2, 1.3, 1.0])
_S = np.array([-0.9, -1.25, -0.9, -0.5, -0.25, -0.08])
_T = np.array([-0.02, 0.32, 0.38, 0.38, 0.32, 0.24])


def _st_vector(kind: str, mv: float, rng: np.random.Generator) -> Floats:
    """(8,) ST levels in mV; reciprocal changes follow from the frontal vector."""
    if kind == "anterior ST elevation":
        return lead_vector(
            0.1 * mv,
            -60,
            mv * np.array([0.7, 1.0, 1.0, 0.8, 0.25, 0.05]) * rng.uniform(0.85, 1.15, 6),
        )
    if kind == "inferior ST elevation":
        return lead_vector(
            1.1 * mv, rng.uniform(90, 105), mv * np.array([-0.1, -0.3, -0.25, -0.1, 0, 0.05])
        )
    if kind == "lateral ST elevation":
        return lead_vector(
            1.0 * mv, rng.uniform(-25, 0), mv * np.array([-0.15, -0.1, 0, 0.35, 0.9, 1.0])
        )
    if kind == "ST depression":
        return -lead_vector(
            0.8 * mv, rng.uniform(35, 60), mv * np.array([-0.1, 0.1, 0.5, 1.0, 1.0, 0.85])
        )
    return np.zeros(8)


# Limit for each lead's ST level without a finding. Outside V2 and V3, elevation begins above it.
HEALTHY_ST_MV = 0.1


class Heart:
    """The beat shapes of one simulated person; every call with the same generator state gives the
    same heart.

    A subclass may draw other shapes: `simulate` takes the class.
    """

    jitter = 0.012  # standard deviation of a regular RR interval, as a share of it
    breath_depth = (0.16, 0.26)  # of sinus arrhythmia: its swing as a share of the RR interval
    fibrillation_cv = (0.17, 0.28)  # coefficient of variation of RR intervals

    def __init__(self, spec: EcgSpec, rng: np.random.Generator) -> None:
        self.spec = spec
        jitter = rng.uniform(0.8, 1.2, (4, 6))
        size = rng.uniform(0.75, 1.15)
        self.r_mag = rng.uniform(0.7, 1.25)
        self.chest = (_Q * jitter[0], _R * jitter[1] * size, _S * jitter[2] * size, _T * jitter[3])
        self.t_mag = rng.uniform(0.2, 0.38)
        self.t_axis = rng.uniform(30, 60)
        if spec.lvh:
            tall = rng.uniform(1.0, 1.3)
            self.chest = (
                self.chest[0],
                np.array([0.1, 0.2, 0.6, 2.0, 2.7, 2.3]) * tall,
                np.array([-2.0, -2.3, -1.6, -0.7, -0.2, 0]) * tall,
                self.chest[3] * 0.8,
            )
            self.r_mag = rng.uniform(1.5, 2.1)
        self.p_mag = rng.uniform(0.11, 0.2)
        self.p_axis = rng.uniform(40, 70)
        self.p_s = rng.uniform(0.085, 0.11)
        self.st = _st_vector(spec.st, spec.st_mv, rng)
        self.t_mag *= spec.t_scale
        self.chest = (*self.chest[:3], self.chest[3] * spec.t_scale)
        if spec.st == "none":
            sloped = spec.st_of_t * lead_vector(self.t_mag, self.t_axis, self.chest[3])
            self.st = sloped * min(1.0, HEALTHY_ST_MV / max(1e-9, float(np.abs(sloped).max())))
        self.spike = rng.uniform(0.4, 0.9)
        self.pvc_axis = rng.uniform(-120, 150)
        self.pvc_sign = rng.choice([-1.0, 1.0])
        self.pvc_s = rng.uniform(0.14, 0.17)
        self.qt_ms = rng.uniform(390, 420)

    def t_peak(self, rr: float, qrs_s: float) -> float:
        """Seconds from QRS onset to T peak.

        76 % of Bazett's QT, which a wide QRS lengthens. At most 62 % of the RR interval, so that
        the T wave ends before the next beat.
        """
        qt = self.qt_ms / 1000 * np.sqrt(min(rr, 1.3)) + max(0.0, qrs_s - 0.09) * 0.6
        return float(min(qt * 0.76, rr * 0.62))

    def p_wave(self) -> Floats:
        """(8,) amplitudes of the P wave in mV."""
        return lead_vector(
            self.p_mag,
            self.p_axis,
            self.p_mag * np.array([0.35, 0.5, 0.5, 0.45, 0.4, 0.35]),
        )

    def p_shape(self, from_middle: Floats, seconds: float, amplitude: Floats) -> Floats:
        """A P wave (8, n) in mV.

        Args:
            from_middle: (n,) times from its middle.
            seconds: its length.
            amplitude: (8,) in mV.
        """
        return amplitude[:, None] * np.exp(-0.5 * (from_middle / (seconds / 5)) ** 2)

    def normal(self, rr: float) -> Beat:
        """A conducted beat at an RR interval in seconds."""
        d, spec = self.spec.qrs_ms / 1000, self.spec
        t, r_mag, axis = self.t_peak(rr, d), self.r_mag, spec.axis_deg
        q, r, s, tw = self.chest
        t_sigma = max(0.028, 0.16 * t)
        limb_t, t_axis = self.t_mag, self.t_axis
        if LBBB in spec.conduction:
            chest_a = np.array([-0.9, -1.2, -1.1, -0.2, 0.7, 0.8]) * self.chest[1].mean()
            first = lead_vector(0.62 * r_mag, axis, chest_a)
            second = lead_vector(
                0.66 * r_mag, axis, chest_a * np.array([1.1, 1.1, 0.9, 0.5, 0.95, 1.0])
            )
            tee = lead_vector(-0.3 * r_mag, axis, -0.36 * chest_a)
            waves = _waves(
                (0.30 * d, 0.12 * d, first), (0.68 * d, 0.13 * d, second), (t, t_sigma, tee)
            )
            return Beat(*waves, lead_vector(-0.12 * r_mag, axis, -0.13 * chest_a), d, t)
        if RBBB in spec.conduction:
            late = lead_vector(
                0.45 * r_mag, axis + 150, np.array([0.95, 0.55, 0.1, -0.35, -0.45, -0.5]) * r[3]
            )
            early = np.array([0.25, 0.35, 0.6, 1.0, 1.1, 0.9]) * r[3] * 0.9
            down = np.array([-0.45, -0.8, -0.7, -0.4, -0.15, 0]) * r[3] * 0.8
            waves = _waves(
                (0.22 * d, 0.075 * d, lead_vector(r_mag, axis, early)),
                (0.42 * d, 0.075 * d, lead_vector(0.15 * r_mag, axis + 180, down)),
                (0.70 * d, 0.12 * d, late),
                (
                    t,
                    t_sigma,
                    lead_vector(
                        limb_t,
                        t_axis,
                        tw * np.array([-6, -0.7, 0.3, 0.9, 1, 1]) + [-0.1, 0, 0, 0, 0, 0],
                    ),
                ),
            )
            return Beat(*waves, self.st, d, t)
        waves = _waves(
            (0.20 * d, 0.08 * d, lead_vector(0.08 * r_mag, axis + 190, q)),
            (0.45 * d, 0.12 * d, lead_vector(r_mag, axis, r)),
            (0.75 * d, 0.10 * d, lead_vector(0.18 * r_mag, axis + 160, s)),
            (t, t_sigma, lead_vector(limb_t, t_axis, tw)),
        )
        return Beat(*waves, self.st, d, t)

    def wide(self, rr: float, duration: float, axis: float, sign: float) -> Beat:
        """A broad ventricular beat with a discordant T wave: ectopic (either sign in V1), paced or
        escape."""
        d, t = duration, self.t_peak(max(rr, 0.7), duration)
        chest = np.array([1.0, 1.3, 1.1, 0.6, -0.2, -0.6]) * sign * 1.1
        vector = lead_vector(1.2 * self.r_mag, axis, chest)
        waves = _waves(
            (0.36 * d, 0.14 * d, vector),
            (0.68 * d, 0.12 * d, 0.55 * vector),
            (t, 0.17 * t, -0.45 * vector),
        )
        return Beat(*waves, -0.1 * vector, d, t)

    def fibrillation(self, time: Floats, rng: np.random.Generator) -> Floats:
        """(8, n) fibrillatory waves, 5-8 Hz with a wandering phase, largest in V1."""
        out = np.zeros((8, time.size))
        leads = np.array([0.6, 1, 1.6, 1.0, 0.6, 0.4, 0.4, 0.4])
        for _ in range(3):
            carrier = rng.uniform(5, 8) * time
            wobble = 0.35 * np.sin(2 * np.pi * rng.uniform(0.3, 1.1) * time + rng.uniform(0, 6.3))
            scale = rng.uniform(0.012, 0.035) * leads
            phase = 2 * np.pi * (carrier + wobble)
            out += scale[:, None] * np.sin(phase + rng.uniform(0, 6.3))
        return out

    def flutter(self, time: Floats, onsets: Floats, rng: np.random.Generator) -> Floats:
        """(8, n) saw-tooth at a whole multiple of the ventricular rate, phase-locked to the QRS
        complexes, which begin at `onsets`."""
        ratio = min((2, 3, 4), key=lambda k: abs(self.spec.rate_bpm * k - 290))
        cycles = np.interp(time, onsets, np.arange(onsets.size) * ratio) + rng.uniform(0, 1)
        wave = self.saw(cycles % 1.0)
        magnitude = rng.uniform(0.2, 0.32)
        chest = rng.uniform(0.12, 0.2) * np.array([-1, -0.5, 0.2, 0.3, 0.4, 0.4])
        return lead_vector(magnitude, 85, chest)[:, None] * wave

    def saw(self, phase: Floats) -> Floats:
        """A flutter wave at phases 0..1: a slow down-slope, a fast up-stroke."""
        return np.where(phase < 0.7, -phase / 0.7, (phase - 1) / 0.3) + 0.5


@dataclass
class _Timeline:
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


def _timeline(spec: EcgSpec, heart: Heart, rng: np.random.Generator) -> _Timeline:
    line, rr = _Timeline(), 60 / spec.rate_bpm
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


def _with_ectopy(line: _Timeline, spec: EcgSpec, rr: float, rng: np.random.Generator) -> _Timeline:
    """Moves beats to their premature time. A ventricular one hides its P wave and is followed by a
    full pause."""
    if spec.ectopy == "none":
        return line
    out = _Timeline(spikes=line.spikes)
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
    line = _timeline(spec, heart, rng)
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
    signal: Floats, hz: int, spec: EcgSpec, heart: Heart, line: _Timeline, widths: Floats
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


@dataclass(frozen=True)
class Noise:
    """Ranges of the disturbances, all in mV: baseline wander, white (muscle) noise, mains hum;
    chance of a burst."""

    wander: float = 0.10
    white: float = 0.025
    hum: float = 0.012
    burst: float = 0.08


def add_noise(ecg: Ecg, seed: int, noise: Noise = Noise()) -> Ecg:
    """The same recording with wander, muscle noise, hum and, sometimes, a burst of movement in one
    lead."""
    rng = np.random.default_rng([seed, 2])
    n = ecg.signal.shape[1]
    time = np.arange(n) / ecg.hz
    out = ecg.signal.copy()
    for _ in range(2):
        depth = rng.uniform(0, noise.wander) * rng.uniform(0.2, 1, 12)
        out += depth[:, None] * np.sin(
            2 * np.pi * rng.uniform(0.08, 0.4) * time + rng.uniform(0, 6.3, (12, 1))
        )
    out += rng.uniform(0, noise.white) * rng.standard_normal((12, n), dtype=np.float32)
    out += rng.uniform(0, noise.hum) * np.sin(2 * np.pi * rng.choice([50.0, 60.0]) * time)
    if rng.random() < noise.burst:
        lead, start, width = rng.integers(0, 12), rng.uniform(0.5, 9), rng.uniform(0.1, 0.4)
        out[lead] += rng.normal(0, 0.3) * np.exp(-0.5 * ((time - start) / width) ** 2)
    return replace(ecg, signal=out)


def sample_spec(rng: np.random.Generator, rare: float = 1.0) -> EcgSpec:
    """A random combination of findings that can occur together.

    Frequencies are balanced for scoring, not as in a clinic. The order of the draws is part of the
    held-out cases: another order makes other pages from the same seeds.

    Args:
        rng: draws everything.
        rare: weight of what occurs on few pages (AV blocks above the first degree, premature beats,
            sinus arrhythmia). Training sees more of it.
    """
    axis = _pick(rng, AXES, (0.6, 0.22, 0.18))
    axis_deg = {
        AXES[0]: rng.uniform(-10, 80),
        AXES[1]: rng.uniform(-75, -42),
        AXES[2]: rng.uniform(105, 145),
    }[axis]
    spec = EcgSpec(
        rate_bpm=rng.uniform(62, 98),
        pr_ms=rng.uniform(125, 185),
        qrs_ms=rng.uniform(76, 104),
        axis_deg=float(axis_deg),
    )
    if rng.random() < 0.08:
        return replace(spec, axis_deg=float(rng.uniform(-10, 80)))  # entirely normal
    kinds = ("sinus", "fibrillation", "flutter", "paced", "second", "third")
    kind = _pick(rng, kinds, (0.62, 0.12, 0.09, 0.06, 0.06 * rare, 0.05 * rare))
    if kind == "paced":
        return _paced(spec, rng)
    if kind == "third":
        return _third_degree_block(spec, rng)
    if kind == "second":
        return replace(spec, rate_bpm=rng.uniform(45, 78), pr_ms=None, conduction=(SECOND,))
    if kind == "sinus":
        spec = _sinus(spec, rng, rare)
    elif kind == "fibrillation":
        rate = rng.uniform(55, 150)
        spec = replace(spec, rhythm="atrial fibrillation", rate_bpm=rate, pr_ms=None)
    else:
        ratio = int(_pick(rng, ("2", "3", "4"), (0.4, 0.2, 0.4)))
        rate = rng.uniform(265, 315) / ratio
        spec = replace(spec, rhythm="atrial flutter", rate_bpm=rate, pr_ms=None)
    block = _pick(rng, ("", LBBB, RBBB), (0.7, 0.14, 0.16))
    if block:
        spec = _bundle_branch_block(spec, rng, block)
    if block != LBBB and kind != "flutter" and rng.random() < 0.42:
        st = _pick(rng, ST_CHANGES[1:], (0.3, 0.26, 0.2, 0.24))
        low, high = (0.14, 0.24) if st == "ST depression" else (0.16, 0.38)
        spec = replace(spec, st=st, st_mv=rng.uniform(low, high))
    if not block and rng.random() < 0.13:
        spec = replace(spec, lvh=True)
    ectopic = kind in ("sinus", "fibrillation") and spec.rate_bpm < 125
    if ectopic and rng.random() < 0.2 + 0.1 * rare:
        spec = _ectopic(spec, rng, rare)
    return spec


def _pick(rng: np.random.Generator, names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    return names[int(rng.choice(len(names), p=np.array(weights) / sum(weights)))]


def _paced(spec: EcgSpec, rng: np.random.Generator) -> EcgSpec:
    return replace(
        spec,
        rhythm="ventricular paced rhythm",
        rate_bpm=rng.uniform(55, 90),
        pr_ms=None,
        qrs_ms=rng.uniform(145, 180),
        axis_deg=float(rng.uniform(-80, -55)),
    )


def _third_degree_block(spec: EcgSpec, rng: np.random.Generator) -> EcgSpec:
    wide = rng.random() < 0.5
    return replace(
        spec,
        rhythm="sinus rhythm",
        rate_bpm=rng.uniform(30, 48),
        pr_ms=None,
        conduction=(THIRD,),
        qrs_ms=rng.uniform(130, 165) if wide else spec.qrs_ms,
    )


def _sinus(spec: EcgSpec, rng: np.random.Generator, rare: float) -> EcgSpec:
    """A rhythm of the sinus node, some with a first-degree AV block."""
    rhythm = _pick(rng, RHYTHMS[:4], (0.44, 0.2, 0.2, 0.16 * rare))
    rate = {
        RHYTHMS[1]: rng.uniform(40, 57),
        RHYTHMS[2]: rng.uniform(104, 145),
        RHYTHMS[3]: rng.uniform(62, 90),
    }.get(rhythm, rng.uniform(62, 97))
    spec = replace(spec, rhythm=rhythm, rate_bpm=float(rate))
    if rng.random() < 0.35 and rate < 120:
        longest = 300 if rate > 90 else 330
        return replace(spec, conduction=(FIRST,), pr_ms=rng.uniform(225, longest))
    if rhythm == RHYTHMS[2]:
        return replace(spec, pr_ms=rng.uniform(120, 165))
    return spec


def _bundle_branch_block(spec: EcgSpec, rng: np.random.Generator, block: str) -> EcgSpec:
    conduction = (*spec.conduction, block)
    spec = replace(spec, conduction=conduction, qrs_ms=rng.uniform(130, 165))
    if block == LBBB and spec.axis_deg > 90:
        spec = replace(spec, axis_deg=float(rng.uniform(-10, 60)))
    return spec


def _ectopic(spec: EcgSpec, rng: np.random.Generator, rare: float) -> EcgSpec:
    """Add premature beats.

    Where bigeminy or atrial beats would hide another finding, take single ventricular ones.
    """
    single, bigeminy = ECTOPY[1:3]
    ectopy = _pick(rng, ECTOPY[1:], (0.45, 0.25 * rare, 0.3 * rare))
    irregular = spec.rhythm in ("atrial fibrillation", "sinus arrhythmia")
    if irregular or FIRST in spec.conduction or (ectopy == bigeminy and spec.rate_bpm > 105):
        ectopy = single
    return replace(spec, ectopy=ectopy)


def vary_repolarization(spec: EcgSpec, rng: np.random.Generator) -> EcgSpec:
    """The same findings with smaller or taller T waves, which in most healthy hearts begin above
    the baseline.

    Only training pages use this, not the held-out ones: it prepares a model for real recordings. A
    model trained without it called ST elevation in the real recording of pydicom's tests. There the
    ST level 60 ms after J is 0.06, 0.05 and 0.12 mV (II, aVF, V3), under T waves of 0.52, 0.37 and
    0.86 mV.
    """
    scale = float(np.exp(rng.uniform(-0.3, 0.8)))
    return replace(spec, t_scale=scale, st_of_t=float(max(0.0, rng.uniform(-0.08, 0.25))))
