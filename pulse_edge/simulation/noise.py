"""Disturbances of a simulated recording."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pulse_edge.simulation.ecg import Ecg


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
