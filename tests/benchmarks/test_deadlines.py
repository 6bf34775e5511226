"""The deadline benchmark, on few requests, and its figures on outcomes that are made here."""

from __future__ import annotations

import json
import math
import random

import pytest

from benchmarks.deadlines.bystander import bystander
from benchmarks.deadlines.cases import FAR, HurriedCase, NumberedPages, random_cases
from benchmarks.deadlines.hurry import REFUSED, HurriedOutcome
from benchmarks.deadlines.punctuality import bars, rows_of_hurry, spread, summarise_hurry

from support.scripts import run_script

HURRIED = HurriedCase("new", "short", 0, 0.5)
PATIENT = HurriedCase("known", "report", 1, math.inf)


def outcomes() -> list[HurriedOutcome]:
    return [
        HurriedOutcome(HURRIED, 1.0, "deadline", 1.030, 2.0, stage="decode"),
        HurriedOutcome(HURRIED, 1.0, "deadline", 1.010, None, stage="vision"),
        HurriedOutcome(HURRIED, 1.0, "eos", 0.8, 0.6),
        HurriedOutcome(HURRIED, 1.0, REFUSED, 0.2, 5.0, decision_s=0.001),
        HurriedOutcome(PATIENT, FAR, "length", 2.0, 2.2),
    ]


def test_the_figures_of_a_run() -> None:
    figures = summarise_hurry(outcomes(), {"step": 0.012, "chunk": 0.005}, [0.0, 0.002])
    assert (figures["requests"], figures["hurried"], figures["in_time"]) == (5, 4, 1)
    assert figures["ended"] == {"deadline": 2, "eos": 1, "refused": 1}
    assert figures["overshoot"]["max"] == pytest.approx(0.030)
    assert figures["overshoot_by_stage"]["vision"]["p50"] == pytest.approx(0.010)
    assert figures["decision"]["count"] == 1
    assert figures["prediction_error"]["count"] == 2
    assert figures["prediction_error"]["max"] == pytest.approx(0.25)
    assert figures["unhurried_error"]["p50"] == pytest.approx(0.10)
    assert figures["bystander"]["max"] == 0.002
    assert bars(figures) == {"overshoot": True, "decision": True, "unhurried_error": True}
    figures = summarise_hurry(outcomes(), {"step": 0.009}, [])
    assert bars(figures)["overshoot"] is False
    assert len({len(row) for row in rows_of_hurry(figures)}) == 1


def test_no_figures_of_nothing() -> None:
    figures = summarise_hurry([], {}, [])
    assert set(bars(figures).values()) == {None}
    assert spread([]) == {"count": 0}
    assert rows_of_hurry(figures)[1] == ["overshoot, ms", "", "", "", "0"]


def test_cases_are_random_and_the_same_again() -> None:
    cases = random_cases(400, random.Random(3))
    assert cases == random_cases(400, random.Random(3))
    hurried = [case.share for case in cases if not math.isinf(case.share)]
    assert (len(cases), len(hurried)) == (500, 400)
    assert 0.1 <= min(hurried) < 0.12
    assert 1.7 < max(hurried) <= 2.0
    assert sum(share < math.sqrt(0.2) for share in hurried) == pytest.approx(200, abs=50)
    for name in ("sight", "question", "priority", "best_effort"):
        assert len({getattr(case, name) for case in cases}) >= 2


def test_new_pages_differ_and_known_ones_repeat() -> None:
    pages = NumberedPages()
    assert len({pages.page("new", number) for number in range(8)}) == 8
    assert len({pages.page("known", number) for number in range(8)}) == 3
    assert pages.page("known", 1) == pages.page("looked", 4)


def test_a_bystander_tells_how_late_it_woke() -> None:
    with bystander() as lateness:
        assert lateness == []
    assert all(seconds >= 0 for seconds in lateness)


def test_a_short_run() -> None:
    done = run_script("deadlines", "--count", 4, "--alone", 1, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["figures"]["hurried"] == 4
    assert record["figures"]["requests"] == 5
    assert "chunk" in record["figures"]["longest"]
    assert record["versions"]["pulse-edge"]
    assert record["machine"]["usable_cores"] >= 1
    assert set(record["alone"]) == {
        f"{sight} {question}"
        for sight in ("new", "known", "looked")
        for question in ("short", "report")
    }
