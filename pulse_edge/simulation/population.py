"""Random findings that can occur together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pulse_edge.simulation.ecg import (
    AXES,
    ECTOPY,
    FIRST,
    LBBB,
    RBBB,
    RHYTHMS,
    SECOND,
    ST_CHANGES,
    THIRD,
    EcgSpec,
)


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
