"""The beats of one simulated heart, as sums of Gaussian waves.

P, Q, R, S, T and their pathological variants, as in McSharry et al., "A dynamical model for
generating synthetic electrocardiogram signals", IEEE TBME 2003; here every wave also has an
amplitude per lead. Limb leads come from a frontal-plane vector (magnitude, angle), so Einthoven's
and Goldberger's relations hold exactly; precordial leads have their own amplitudes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulse_edge.simulation.ecg import LBBB, RBBB, EcgSpec, Floats


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
