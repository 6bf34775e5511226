"""Goodput: answers a second that keep a service level objective (SLO), as vLLM defines it.

vLLM's `--goodput ttft:3000 tpot:100` names metrics and milliseconds; an answer is good if it is
within all of them, and goodput is good answers / seconds of the benchmark
(docs.vllm.ai, `vllm bench serve`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pulse_edge.errors import ParameterError

# vLLM's name of a metric -> our figure, of cold requests.
METRICS = {"ttft": "ttft_cold", "tpot": "tpot", "e2el": "e2e"}
PAIR = re.compile(r"[a-z0-9]+:.+")  # what an objective looks like on the command line
Objectives = dict[str, float]  # metric -> milliseconds


def objectives(texts: Iterable[str]) -> Objectives:
    """Read objectives.

    Args:
        texts: pairs like "ttft:3000"; one text may hold several, separated by commas or spaces.

    Raises:
        ParameterError: a metric is unknown or named twice, or its limit is no positive number.
    """
    found: Objectives = {}
    for pair in (pair for text in texts for pair in re.split(r"[,\s]+", text) if pair):
        metric, _, limit = pair.partition(":")
        if metric not in METRICS:
            raise ParameterError(
                f"goodput is {pair!r}, but must be METRIC:MILLISECONDS, the metric one of "
                f"{', '.join(METRICS)}"
            )
        if metric in found:
            raise ParameterError(f"goodput names {metric} twice; give each metric one limit")
        found[metric] = _milliseconds(pair, limit)
    return found


def goodput(samples: Mapping[str, Sequence[float]], slo: Objectives) -> dict[str, Any] | None:
    """Of cold requests, JSON-ready.

    Args:
        samples: seconds of each request by the name of a figure, in the order of the requests.
        slo: objectives; none give no goodput.

    Returns:
        None without objectives or requests.
    """
    seconds = samples.get("e2e", [])
    if not slo or not seconds:
        return None
    limits = [(samples[METRICS[metric]], limit / 1000) for metric, limit in slo.items()]
    good = sum(all(times[i] <= limit for times, limit in limits) for i in range(len(seconds)))
    return {
        "objectives_ms": dict(slo),
        "requests": len(seconds),
        "good": good,
        "requests_per_s": float(f"{good / sum(seconds):.6g}"),
    }


def _milliseconds(pair: str, text: str) -> float:
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ParameterError(f"goodput is {pair!r}, but its limit must be milliseconds above 0")
    return limit
