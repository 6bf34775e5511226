"""Figures of requests with deadlines, and the bars that they must meet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.deadlines.hurry import REFUSED, HurriedOutcome

WHOLE = ("eos", "stop", "length", "context")
GRACE_S = 0.020  # that an answer may come after the call that its deadline interrupted
DECISION_S = 0.005  # to refuse
PREDICTION = 0.15  # median error


def spread(values: Iterable[float]) -> dict[str, float | int]:
    """`p50`, `p99`, `max` and `count`; no figures of nothing."""
    array = np.array(list(values))
    if not array.size:
        return {"count": 0}
    middle, high = np.percentile(array, (50, 99))
    return {
        "p50": middle.item(),
        "p99": high.item(),
        "max": array.max().item(),
        "count": len(array),
    }


def summarise_hurry(
    outcomes: list[HurriedOutcome], longest: Mapping[str, float], lateness: Iterable[float]
) -> dict[str, Any]:
    """Figures of a run.

    Args:
        outcomes: of its requests.
        longest: seconds of the longest call of each kind.
        lateness: seconds by which a sleeper in another process woke too late meanwhile.
    """
    refused = [each for each in outcomes if each.ended == REFUSED]
    answered = [each for each in outcomes if each.ended != REFUSED]
    late = [each for each in answered if each.seconds > each.deadline_s]
    hurried = [each for each in outcomes if not math.isinf(each.case.share)]
    stages = {each.stage for each in late if each.stage}
    whole = [each for each in answered if each.ended in WHOLE and each.predicted_s is not None]
    first = [each for each in whole if each.case.priority == "interactive"]
    return {
        "requests": len(outcomes),
        "hurried": len(hurried),
        "ended": dict(Counter(each.ended for each in hurried)),
        "in_time": sum(each.ended in WHOLE and each.seconds <= each.deadline_s for each in hurried),
        "overshoot": spread(_overshoot(late)),
        "overshoot_by_stage": {
            stage: spread(_overshoot(each for each in late if each.stage == stage))
            for stage in sorted(stages)
        },
        "longest": dict(longest),
        "bystander": spread(lateness),
        "decision": spread(e.decision_s for e in refused if e.decision_s is not None),
        "refusal": spread(each.seconds for each in refused),
        "prediction_error": spread(map(_error, whole)),
        "prediction_error_interactive": spread(map(_error, first)),
        "predicted_share": spread(_predicted_share(each) for each in whole),
        "unhurried_error": spread(_error(e) for e in first if math.isinf(e.case.share)),
    }


def bars(figures: Mapping[str, Any]) -> dict[str, bool | None]:
    """Whether each bar is met; None if nothing was measured."""
    call = max((s for name, s in figures["longest"].items()), default=0.0)
    checks = (
        ("overshoot", "max", call + GRACE_S),
        ("decision", "p50", DECISION_S),
        ("unhurried_error", "p50", PREDICTION),
    )
    return {
        name: figures[name][which] <= most if figures[name]["count"] else None
        for name, which, most in checks
    }


def rows_of_hurry(figures: Mapping[str, Any]) -> list[list[str]]:
    """A table for people."""
    rows = [["", "p50", "p99", "max", "n"]]
    rows.append(_row("overshoot, ms", figures["overshoot"], 1e3))
    for stage, values in figures["overshoot_by_stage"].items():
        rows.append(_row(f"  in {stage}", values, 1e3))
    rows.append(_row("  a sleeper in another process, ms", figures["bystander"], 1e3))
    rows.append(_row("decision to refuse, ms", figures["decision"], 1e3))
    rows.append(_row("submission to refusal, ms", figures["refusal"], 1e3))
    rows.append(_row("prediction error, %", figures["prediction_error"], 100))
    rows.append(_row("  interactive", figures["prediction_error_interactive"], 100))
    rows.append(_row("  interactive, no hurry", figures["unhurried_error"], 100))
    rows.append(_row("predicted of taken, %", figures["predicted_share"], 100))
    return rows


def _row(name: str, values: Mapping[str, float], scale: float) -> list[str]:
    if not values["count"]:
        return [name, "", "", "", "0"]
    cells = [f"{scale * values[which]:.1f}" for which in ("p50", "p99", "max")]
    return [name, *cells, str(values["count"])]


def _overshoot(late: Iterable[HurriedOutcome]) -> Iterable[float]:
    return (each.seconds - each.deadline_s for each in late)


def _predicted_share(outcome: HurriedOutcome) -> float:
    assert outcome.predicted_s is not None
    return outcome.predicted_s / outcome.seconds


def _error(outcome: HurriedOutcome) -> float:
    return abs(_predicted_share(outcome) - 1)
