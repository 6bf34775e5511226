"""Which of a CPU's engines runs a bundle faster here, as `pulse-edge build --tune` has measured.

`auto` takes an engine of `EngineRow.measured` only where such a measurement is remembered. So no
load measures anything, and an answer comes from another engine only after somebody asked for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec

from pulse_edge.bundle.bundle import Bundle
from pulse_edge.state import FACT, recall, remember
from pulse_edge.system import processor

FASTER = "engines"  # kind of the state folder's records: seconds of a page's request, by engine
# Engine -> the package that it needs, whose version its speed depends on.
RIVALS = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
FIRST = "onnxruntime"  # taken unless another one is faster by more than measurements scatter
LEAD = 0.95


def rival_engines() -> tuple[str, ...]:
    """The engines to compare: those whose package is installed."""
    return tuple(name for name, package in RIVALS.items() if find_spec(package) is not None)


def remember_speeds(bundle: Bundle, seconds: Mapping[str, float]) -> None:
    """Keep a measurement.

    Args:
        bundle: that was measured.
        seconds: of a page's request, by engine.
    """
    remember(FASTER, _facts(bundle), dict(seconds))


def measured_speeds(bundle: Bundle) -> dict[str, float]:
    """Seconds of a page's request by engine, on this processor with these versions; or nothing."""
    if len(rival_engines()) < 2:
        return {}
    record = recall(FASTER, _facts(bundle)) or {}
    return {name: float(record[name]) for name in RIVALS if _is_time(record.get(name))}


def fastest_engine(speeds: Mapping[str, float]) -> str:
    """The engine that `auto` takes."""
    if FIRST not in speeds:
        return FIRST
    best = min(speeds, key=lambda name: speeds[name])
    return best if speeds[best] < LEAD * speeds[FIRST] else FIRST


def _is_time(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and value > 0


def _facts(bundle: Bundle) -> dict[str, FACT]:
    from importlib.metadata import version  # takes 50 ms to import

    versions = {name: version(RIVALS[name]) for name in rival_engines()}
    return {
        "bundle": bundle.digest,
        "processor": json.dumps(processor(), sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
    }
