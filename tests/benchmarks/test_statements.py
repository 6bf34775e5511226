"""The statement parser's evaluation, on fewer reports than `python -m benchmarks.statements`."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.panels import TRUTHS
from benchmarks.reports import TrueReport, free_report, nano_report, with_broader
from benchmarks.statements import STYLES, StatementScores, score_style
from pulse_edge.panels.panel_file import load_panel
from pulse_edge.simulation.population import sample_spec
from pulse_edge.simulation.questions import Findings

from support.scripts import run_script


@pytest.mark.parametrize(("style", "recall"), [("nano", 0.999), ("free", 0.90)])
def test_the_parser_asserts_what_reports_say(style: str, recall: float) -> None:
    scores = score_style(style, 150, seed=3)
    assert scores.asserted > 600
    assert scores.precision >= 0.99
    assert scores.recall >= recall
    assert scores.hedged_kept >= 0.98 * scores.hedged
    assert scores.false_conflicts == 0
    assert scores.values_right == scores.values_true == scores.values_read


def test_the_evaluation_counts_what_is_wrong() -> None:
    scores = StatementScores()
    scores.add(TrueReport("AF. No LVH. Possible AV block. RBBB. No RBBB.", with_broader({})))
    assert (scores.right, scores.true) == (0, 0)
    assert scores.asserted == 2  # AF, and LVH
    assert scores.precision == 0
    assert len(scores.errors) == 2
    truth = with_broader({"atrial fibrillation": "stated", "atrial flutter": "negated"})
    scores = StatementScores()
    scores.add(TrueReport("AF.", truth, {"heart rate": 70}))
    assert (scores.precision, scores.recall) == (1.0, 0.5)
    assert (scores.values_true, scores.values_right) == (1, 0)


def test_reports_are_varied_and_the_same_for_a_seed() -> None:
    for make in STYLES.values():
        texts = [make(np.random.default_rng([5, index])).text for index in range(40)]
        assert len(set(texts)) > 35
        assert texts[:5] == [make(np.random.default_rng([5, index])).text for index in range(5)]


def test_truths_are_consistent() -> None:
    for index in range(200):
        for make in (nano_report, free_report):
            truth = make(np.random.default_rng([6, index])).statuses
            assert not ({"normal ECG", "abnormal ECG"} <= truth.keys())
            if truth.get("AV block") == "negated":
                assert truth.get("first-degree AV block") != "stated"


def test_every_truth_of_a_page_is_an_option_of_the_panel() -> None:
    questions = {question.id: question for question in load_panel("pulse-nano").questions}
    rng = np.random.default_rng(0)
    for _ in range(300):
        spec = sample_spec(rng)
        truth = Findings.of({**spec.__dict__, "axis": spec.axis})
        for name, expected in TRUTHS.items():
            assert expected(truth) in questions[name].options


def test_the_scripts_run() -> None:
    done = run_script("statements", "--reports", 20, "--errors", 1)
    assert done.returncode == 0, done.stderr
    assert "| nano | 10 |" in done.stdout
    done = run_script("panels", "--pages", 2, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "| rhythm | " in done.stdout
