"""Varied hearts beat otherwise, and keep what their findings state."""

from __future__ import annotations

import numpy as np
import pytest

from pulse_edge.simulation.ecg import LEADS, EcgSpec
from pulse_edge.simulation.simulator import simulate
from pulse_nano.hearts import VariedHeart, sample_varied_spec

LIMITS = {
    "sinus rhythm": (60, 100),
    "sinus bradycardia": (30, 60),
    "sinus tachycardia": (100, 170),
}


def test_the_same_seed_gives_the_same_recording() -> None:
    spec = EcgSpec()
    first, again = (simulate(spec, 3, 250, VariedHeart).signal for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - simulate(spec, 4, 250, VariedHeart).signal).max() > 0.05
    assert np.abs(first - simulate(spec, 3, 250).signal).max() > 0.05


@pytest.mark.parametrize("seed", range(20))
def test_limb_leads_obey_einthoven_and_beats_are_seen(seed: int) -> None:
    spec = sample_varied_spec(np.random.default_rng(seed), 1.5)
    ecg = simulate(spec, seed, 250, VariedHeart)
    lead = dict(zip(LEADS, ecg.signal, strict=True))
    np.testing.assert_allclose(lead["I"] + lead["III"], lead["II"], atol=1e-9)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0, atol=1e-9)
    at = np.clip((ecg.qrs[:, None] + np.linspace(0, 0.12, 31)) * 250, 0, 2499).astype(int)
    assert np.ptp(ecg.signal[:, at], axis=2).max() > 0.25  # mV: QRS complexes are visible
    assert np.abs(ecg.signal).max() < 8


def test_rates_agree_with_the_names_of_rhythms() -> None:
    for seed in range(300):
        spec = sample_varied_spec(np.random.default_rng(seed), 1.5)
        if spec.rhythm in LIMITS and not any("degree" in name for name in spec.conduction[1:]):
            low, high = LIMITS[spec.rhythm]
            blocked = any(name[:5] in ("secon", "third") for name in spec.conduction)
            assert blocked or low < spec.rate_bpm < high, spec
        assert spec.rate_bpm <= 120 or spec.ectopy == "none"
        assert spec.pr_ms is None or spec.pr_ms / 1000 < 60 / spec.rate_bpm


def test_the_st_segment_of_a_heart_without_a_finding_stays_level() -> None:
    """The T wave's up-slope is clear of it, 60 ms after J; what is stated is in `Ecg.st_mv`."""
    for seed in range(40):
        spec = EcgSpec(axis_deg=40)
        ecg = simulate(spec, seed, 500, VariedHeart)
        at = np.round((ecg.qrs[1:-1] + spec.qrs_ms / 1000 + 0.03) * 500).astype(int)
        start = np.round((ecg.qrs[1:-1] - 0.02) * 500).astype(int)
        level = np.median(ecg.signal[:, at] - ecg.signal[:, start], axis=1)
        assert np.abs(level - ecg.st_mv).max() < 0.15, seed


def test_waves_differ_from_heart_to_heart() -> None:
    """Sizes of R in V5, P in II and T in V3 spread more than in the held-out pages."""
    spec = EcgSpec()

    def spread(varied: bool) -> float:
        sizes = []
        for seed in range(30):
            ecg = simulate(spec, seed, 250, VariedHeart) if varied else simulate(spec, seed, 250)
            sizes.append(np.abs(ecg.signal).max(axis=1))
        relative = np.log(np.array(sizes)).std(axis=0)
        return float(relative.mean())

    assert spread(True) > 1.3 * spread(False)
