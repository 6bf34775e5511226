"""Figures of a run: percentiles with their counts, errors by kind, goodput."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.serve.client import Outcome
from benchmarks.serve.loops import LoopRun
from benchmarks.serve.workload import KINDS

PERCENTILES = (50, 90, 99)
LATE = 0.05  # seconds; if more requests than 1 % were later, this program was the bottleneck


def percentiles(values: Iterable[float]) -> dict[str, float | int]:
    """`p50`, `p90`, `p99`, and their `count`; no percentiles of nothing."""
    array = np.array(list(values))
    if not array.size:
        return {"count": 0}
    figures = {f"p{p}": float(np.percentile(array, p)) for p in PERCENTILES}
    return {**figures, "count": array.size}


def summarise(run: LoopRun, deadline: float | None) -> dict[str, Any]:
    """Figures of a run.

    Args:
        run: of a loop.
        deadline: seconds from when a request was due in which its answer must be complete to count
            as good; None counts every complete answer.
    """
    complete = [o for o in run.outcomes if not o.error]
    good = [o for o in complete if deadline is None or o.end <= deadline]
    return {
        "requests": len(run.outcomes),
        "seconds": run.seconds,
        "throughput": len(complete) / run.seconds,
        "tokens_per_second": sum(o.tokens for o in complete) / run.seconds,
        "deadline": deadline,
        "good_share": len(good) / len(run.outcomes) if run.outcomes else 0.0,
        "goodput": len(good) / run.seconds,
        "errors": dict(Counter(o.error for o in run.outcomes if o.error)),
        "late_share": _share(o.late > LATE for o in run.outcomes),
        "latencies": {
            kind: latencies([o for o in complete if kind in ("all", o.kind)])
            for kind in ("all", *KINDS)
        },
    }


def latencies(outcomes: list[Outcome]) -> dict[str, Any]:
    """Percentiles in seconds of what a client waits for."""
    return {
        "ttft": percentiles(o.ttft for o in outcomes if o.ttft is not None),
        "tpot": percentiles(o.tpot for o in outcomes if o.tpot is not None),
        "end": percentiles(o.end for o in outcomes),
    }


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def rows_of(summary: dict[str, Any]) -> list[list[str]]:
    """A table of a run's latencies, for people."""
    rows = [["", "", *(f"p{p}" for p in PERCENTILES), "n"]]
    for kind, figures in summary["latencies"].items():
        for name, values in figures.items():
            if values["count"]:
                cells = [_milliseconds(values[f"p{p}"]) for p in PERCENTILES]
                rows.append([kind, name, *cells, str(values["count"])])
    return rows


def line_of(summary: dict[str, Any]) -> str:
    """What a run's table does not say, in a line."""
    deadline = summary["deadline"]
    within = "complete" if deadline is None else f"complete within {deadline:g} s"
    errors = ", ".join(f"{count} x {name}" for name, count in summary["errors"].items()) or "none"
    late = summary["late_share"]
    behind = f"; {late:.0%} were sent late: too much for this program" if late > 0.01 else ""
    return (
        f"{summary['requests']} requests in {summary['seconds']:.1f} s, "
        f"{summary['good_share']:.0%} {within}, goodput {summary['goodput']:.3g}/s, "
        f"{summary['tokens_per_second']:.3g} tokens/s, errors: {errors}{behind}"
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"
