"""Hearts of training pages whose beats have other shapes than those of the held-out pages.

A model that has seen one shape of every wave reads the drawings of other programs badly. Here waves
are asymmetric, notched, small or inverted, intervals vary more, and rates reach up to the limits
of their names. What a heart's `EcgSpec` states stays true.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulse_edge.simulation.ecg import LBBB, RBBB, SECOND, THIRD, EcgSpec, Floats
from pulse_edge.simulation.heart import Beat, Heart, lead_vector
from pulse_edge.simulation.population import sample_spec, vary_repolarization


def sample_varied_spec(rng: np.random.Generator, rare: float) -> EcgSpec:
    """Findings as for other training pages, with rates up to the limits of their names.

    Args:
        rng: draws everything.
        rare: see `sample_spec`.
    """
    spec = vary_repolarization(sample_spec(rng, rare), rng)
    limits = {
        "sinus rhythm": (60.5, 99.5),
        "sinus bradycardia": (36, 59.5),
        "sinus tachycardia": (100.5, 165),
        "sinus arrhythmia": (58, 96),
        "atrial fibrillation": (45, 175),
        "ventricular paced rhythm": (50, 100),
    }
    if spec.rhythm in limits and not {SECOND, THIRD} & set(spec.conduction):
        spec = replace(spec, rate_bpm=float(rng.uniform(*limits[spec.rhythm])))
        if spec.rate_bpm > 115 and spec.pr_ms is not None:
            spec = replace(spec, pr_ms=min(spec.pr_ms, 165.0), conduction=_without_first(spec))
        if spec.rate_bpm > 120:
            spec = replace(spec, ectopy="none")
    return spec


def _without_first(spec: EcgSpec) -> tuple[str, ...]:
    return tuple(name for name in spec.conduction if not name.startswith("first"))


class VariedHeart(Heart):
    """A heart with its own deformations of every wave; the same generator state gives the same."""

    def __init__(self, spec: EcgSpec, rng: np.random.Generator) -> None:
        super().__init__(spec, rng)
        self._rng = np.random.default_rng(int(rng.integers(2**31)))
        draw = self._rng.uniform
        self.jitter = float(draw(0.002, 0.035))
        self.breath_depth = (0.11, 0.3)
        self.fibrillation_cv = (0.14, 0.32)
        self._beats: dict[str, Beat] = {}
        self._size = 1.0 if spec.lvh else float(np.exp(draw(-0.7, 0.15)))
        self._fine = float(np.exp(draw(-2.0, 0.8)))  # of fibrillatory waves
        self._fall = float(draw(0.35, 0.8))  # share of a flutter wave that goes down
        self._round = float(draw(0, 1))  # how much of a flutter wave is a sine
        self.p_s *= float(draw(0.8, 1.3))
        self.p_mag *= float(draw(0.4, 1.6))
        self._p_apart = float(draw(0, 0.32)) * (self._rng.random() < 0.5)
        self._p_terminal = float(draw(-1.6, 1.0))  # of V1's second half

    def normal(self, rr: float) -> Beat:
        """See `Heart.normal`."""
        if "normal" not in self._beats:
            self._beats["normal"] = self._vary(super().normal(rr))
        return self._beats["normal"]

    def wide(self, rr: float, duration: float, axis: float, sign: float) -> Beat:
        """See `Heart.wide`."""
        name = f"wide {axis} {sign}"
        if name not in self._beats:
            beat = super().wide(rr, duration, axis, sign)
            self._beats[name] = self._vary_wide(beat)
        return self._beats[name]

    def p_shape(self, from_middle: Floats, seconds: float, amplitude: Floats) -> Floats:
        """Two halves, which may lie apart, and of which the second may point down in V1."""
        half = self._p_apart * seconds / 2
        width = seconds / 5 * (1 - 0.35 * bool(self._p_apart))
        early = np.exp(-0.5 * ((from_middle + max(half, seconds / 12)) / width) ** 2)
        late = np.exp(-0.5 * ((from_middle - max(half, seconds / 12)) / width) ** 2)
        second = amplitude.copy()
        second[2] *= self._p_terminal
        return 0.62 * (amplitude[:, None] * early + second[:, None] * late)

    def fibrillation(self, time: Floats, rng: np.random.Generator) -> Floats:
        """See `Heart.fibrillation`: from hardly visible to coarse."""
        return self._fine * super().fibrillation(time, rng)

    def flutter(self, time: Floats, onsets: Floats, rng: np.random.Generator) -> Floats:
        """See `Heart.flutter`: of other sizes, and turned over in some hearts."""
        size = float(self._rng.uniform(0.5, 1.4)) * (-1 if self._rng.random() < 0.2 else 1)
        return size * super().flutter(time, onsets, rng)

    def saw(self, phase: Floats) -> Floats:
        """A flutter wave between a saw-tooth and a sine."""
        fall = self._fall
        straight = np.where(phase < fall, -phase / fall, (phase - 1) / (1 - fall)) + 0.5
        mixed: Floats = (1 - self._round) * straight + self._round * 0.5 * np.cos(2 * np.pi * phase)
        return mixed

    def _lead_factors(self, spread: float) -> Floats:
        """(8,) factors; those of I and II stay near 1, so that the frontal axis does."""
        out = np.exp(self._rng.normal(0, spread, 8))
        out[:2] = np.exp(self._rng.normal(0, 0.04, 2))
        return out

    def _vary(self, beat: Beat) -> Beat:
        rng, spec = self._rng, self.spec
        count = len(beat.centre)
        centre, sigma = beat.centre.copy(), beat.sigma.copy()
        amplitude, skew = beat.amplitude * self._size, np.ones(count)
        qrs = np.arange(count - 1)
        centre[qrs] += rng.uniform(-0.05, 0.05, count - 1) * beat.j
        sigma[qrs] *= rng.uniform(0.82, 1.15, count - 1)
        skew[qrs] = np.exp(rng.normal(0, 0.2, count - 1))
        spread = 0.12 if spec.lvh else 0.25
        amplitude[qrs] *= self._lead_factors(spread)
        blocked = {LBBB, RBBB} & set(spec.conduction)
        if not blocked:
            amplitude[0] *= rng.uniform(0, 2.5)
            amplitude[2] *= rng.uniform(0.2, 1.8)
        centre, sigma, amplitude, skew = self._vary_t(beat, centre, sigma, amplitude, skew)
        extra = []
        if not blocked and rng.random() < 0.25:  # a notch
            notch = lead_vector(
                rng.uniform(0.04, 0.15) * self.r_mag, rng.uniform(0, 360), rng.normal(0, 0.08, 6)
            )
            extra.append((rng.uniform(0.2, 0.95) * beat.j, 0.06 * beat.j, notch))
        if rng.random() < 0.25:  # a U wave
            after = centre[-1] + rng.uniform(0.13, 0.2)
            extra.append((after, rng.uniform(0.025, 0.045), rng.uniform(0.05, 0.2) * amplitude[-1]))
        return _with_waves(
            replace(
                beat,
                centre=centre,
                sigma=sigma,
                amplitude=amplitude,
                skew=skew,
                st=beat.st,
            ),
            extra,
        )

    def _vary_t(
        self, beat: Beat, centre: Floats, sigma: Floats, amplitude: Floats, skew: Floats
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """The T wave: the last one. Its up-slope stays clear of the ST segment."""
        rng, spec = self._rng, self.spec
        centre[-1] *= rng.uniform(0.88, 1.08)
        most = (centre[-1] - beat.j) / 2.3
        rising = min(sigma[-1] * rng.uniform(0.8, 1.6), max(most, 0.028))
        falling = sigma[-1] * rng.uniform(0.55, 1.1)
        sigma[-1], skew[-1] = rising, falling / rising
        amplitude[-1] *= self._lead_factors(0.25) * float(np.exp(rng.uniform(-0.7, 0.3)))
        if spec.st == "none" and not spec.conduction and rng.random() < 0.12:
            turned = rng.random(8) < rng.uniform(0.2, 1)
            amplitude[-1] = np.where(turned, -0.6, 1) * amplitude[-1]
        return centre, sigma, amplitude, skew

    def _vary_wide(self, beat: Beat) -> Beat:
        rng = self._rng
        count = len(beat.centre)
        factors = np.exp(rng.normal(0, 0.3, 8))
        factors[:2] = np.exp(rng.normal(0, 0.05, 2))
        amplitude = beat.amplitude * factors * float(np.exp(rng.uniform(-0.5, 0.3)))
        amplitude[-1] *= rng.uniform(0.4, 1.4)
        amplitude[1] *= rng.uniform(0.2, 1.3)
        return replace(
            beat,
            centre=beat.centre + rng.uniform(-0.05, 0.05, count) * beat.j,
            sigma=beat.sigma * rng.uniform(0.8, 1.2, count),
            amplitude=amplitude,
            skew=np.exp(rng.normal(0, 0.2, count)),
        )


def _with_waves(beat: Beat, waves: list[tuple[float, float, Floats]]) -> Beat:
    """The beat with further waves: centre, sigma, amplitudes (8,) of each."""
    if not waves:
        return beat
    skew = np.ones(len(beat.centre)) if beat.skew is None else beat.skew
    return replace(
        beat,
        centre=np.append(beat.centre, [wave[0] for wave in waves]),
        sigma=np.append(beat.sigma, [wave[1] for wave in waves]),
        amplitude=np.vstack([beat.amplitude, *(wave[2] for wave in waves)]),
        skew=np.append(skew, np.ones(len(waves))),
    )
