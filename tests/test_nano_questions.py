"""Questions agree with their answers, and the scoring reads answers as it should."""

from __future__ import annotations

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
from pulse_edge.simulation.questions import (
    CHOICES,
    NO_ECG,
    QUESTIONS,
    ask,
    parse_report,
    random_findings,
    report,
    training_items,
)


def test_report_round_trip() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        findings = random_findings(rng)
        assert parse_report(report(findings)) == findings


def test_choice_has_one_right_option() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        findings = random_findings(rng)
        for topic in CHOICES:
            item = ask(findings, "choice", rng, topic)
            assert f"{item.key}. {item.answer[3:]}" in item.question
            assert item.answer[0] == item.key
            assert item.question.count(". ") == 4


def test_every_topic_and_task_answers() -> None:
    rng = np.random.default_rng(2)
    findings = random_findings(rng)
    assert len({ask(findings, "question", rng, topic).answer for topic in QUESTIONS}) == len(
        QUESTIONS
    )
    assert len(training_items(findings, rng)) == 10
    assert {item.answer for item in training_items(None, rng)} == {NO_ECG}


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

    def perfect(image: Image.Image, question: str) -> str:
        return answers[id(image), question]

    best = summary(evaluate(perfect, cases), draws=5)
    mute = summary(evaluate(lambda image, question: "", cases), draws=5)
    for name, cell in best.items():
        if not np.isnan(cell["value"]):
            assert cell["value"] == (0.0 if "wrongly" in name else 1.0), name
    for name, (_, _, counts) in METRICS.items():
        assert not counts or mute[name]["value"] == 0, name
    assert "| mean of the tasks | 1.000 |" in score_table({"best": best, "mute": mute})


def test_heldout_is_fixed() -> None:
    first, second = _cases(1), _cases(1)
    assert first[0].image.tobytes() == second[0].image.tobytes()
    assert first[0].items == second[0].items
