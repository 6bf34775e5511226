"""Records of `pulse-edge bench` that tests change."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from pulse_edge.measure.figures import figure


def with_samples(record: dict[str, Any], **samples: list[float]) -> dict[str, Any]:
    """A copy whose figures have these samples, and the statistics that go with them."""
    changed = copy.deepcopy(record)
    for name, values in samples.items():
        old = changed["figures"][name]
        new = figure(old["what"], old["unit"], old["better"], old["gate"], values)
        changed["figures"][name] = vars(new) | {"samples": list(new.samples)}
    return changed


def scaled(record: dict[str, Any], **factors: float) -> dict[str, Any]:
    """A copy whose figures are multiplied, each of its repetitions."""
    samples = {
        name: [factor * s for s in record["figures"][name]["samples"]]
        for name, factor in factors.items()
    }
    return with_samples(record, **samples)


def steady(record: dict[str, Any], spread: float = 0.01, count: int = 5) -> dict[str, Any]:
    """A copy whose gated times and rates vary by `spread` around their median, evenly."""
    factors = np.linspace(1 - spread, 1 + spread, count)
    samples = {
        name: [f["p50"] * float(factor) for factor in factors]
        for name, f in record["figures"].items()
        if f["gate"] and f["unit"] != "bytes"
    }
    return with_samples(record, **samples)
