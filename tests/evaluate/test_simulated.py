"""The accuracy gate's scores: tolerances, metrics, a perfect model and a mute one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pulse_edge.evaluate.scoring import balanced, macro_f1, set_recall
from pulse_edge.evaluate.simulated import (
    METRICS,
    Scores,
    ask_case,
    report_right,
    score_replies,
    score_table,
    summary,
)
from pulse_edge.evaluate.task import Ask
from pulse_edge.simulation.cases import Case, heldout
from pulse_edge.simulation.questions import report
from pulse_nano.lessons import random_findings


def test_report_tolerances() -> None:
    truth = replace(random_findings(np.random.default_rng(3)), rate=80, pr=160, qrs=90)
    assert report_right(report(replace(truth, rate=85, pr=180, qrs=100)), truth)
    assert not report_right(report(replace(truth, rate=86)), truth)
    assert not report_right(report(replace(truth, pr=None)), truth)
    assert not report_right("Nothing.", truth)


def test_metrics() -> None:
    assert balanced([("a", "a"), ("a", "b"), ("b", "b")]) == pytest.approx(0.75)
    x, y, none = frozenset({"x"}), frozenset({"y"}), frozenset[str]()
    assert set_recall([(x, x), (y, x), (y, y)]) == pytest.approx(0.75)
    assert macro_f1([(x, x), (x, none)]) == pytest.approx(2 / 3)


def evaluate(ask_model: Ask, cases: list[Case]) -> Scores:
    (scores,) = score_replies(ask_case(case, [ask_model]) for case in cases)
    return scores


def _cases(count: int) -> list[Case]:
    return list(heldout(count, empty=0.5))


def test_a_perfect_model_scores_one_and_a_mute_one_does_not() -> None:
    cases = _cases(4)
    answers = {
        (id(case.image), item.question): item.answer for case in cases for item in case.items
    }

    def perfect(image: Image.Image, question: str, turns: Sequence[tuple[str, str]] = ()) -> str:
        assert not turns
        return answers[id(image), question]

    best = summary(evaluate(perfect, cases), draws=5)
    mute = summary(evaluate(lambda image, question, turns=(): "", cases), draws=5)
    for name, cell in best.items():
        if not np.isnan(cell["value"]):
            assert cell["value"] == (0.0 if "wrongly" in name else 1.0), name
    for name, (_, _, counts) in METRICS.items():
        assert not counts or mute[name]["value"] == 0, name
    assert "| mean of the tasks | 1.000 |" in score_table({"best": best, "mute": mute})
