"""Reports compared statement by statement."""

from __future__ import annotations

import pytest

from pulse_edge.evaluate.ecgbench.items import BenchItem
from pulse_edge.evaluate.ecgbench.reading import Paired
from pulse_edge.evaluate.ecgbench.reports import compare_reports, is_broken_gold
from pulse_edge.evaluate.ecgbench.run_file import AnswerLine

BROKEN = "Sure, please provide the ECG report that you would like translated."
CONFIG = "ptb-test-report"


def paired(*reports: tuple[str, str | None]) -> Paired:
    """(gold, answer) of each item; None is an item without an answer."""
    items = [BenchItem(CONFIG, str(i), "", "Report.", gold) for i, (gold, _) in enumerate(reports)]
    lines = [
        AnswerLine(str(i), text, None, False, (), {})
        for i, (_, text) in enumerate(reports)
        if text is not None
    ]
    return Paired(CONFIG, items, lines)


def test_equal_reports_agree_in_every_statement() -> None:
    report = "Sinus rhythm. Left bundle branch block. No atrial fibrillation."
    compared = compare_reports(paired((report, report)))
    assert (compared["precision"], compared["recall"], compared["f1"]) == (1, 1, 1)
    assert "not the paper's judge" in compared["what"]


def test_what_an_answer_misses_or_adds_is_counted() -> None:
    gold = "Left bundle branch block."
    compared = compare_reports(paired((gold, "Atrial fibrillation."), (gold, None)))
    assert compared["statements"]["both"] == 0
    assert compared["recall"] == 0
    assert sum(compared["missed"].values()) == compared["statements"]["golds"]
    assert sum(compared["added"].values()) == compared["statements"]["answers"]


def test_a_negated_finding_is_another_statement() -> None:
    compared = compare_reports(paired(("Atrial fibrillation.", "No atrial fibrillation.")))
    assert compared["statements"]["both"] == 0


@pytest.mark.parametrize(
    ("gold", "broken"),
    [(BROKEN, True), (BROKEN.upper(), True), ("Sinus rhythm.", False), ("", False)],
)
def test_golds_that_are_no_reports_are_known(gold: str, broken: bool) -> None:
    assert is_broken_gold(gold) == broken


def test_figures_are_given_with_and_without_broken_golds() -> None:
    compared = compare_reports(
        paired(("Sinus rhythm.", "Sinus rhythm."), (BROKEN, "Atrial fibrillation."))
    )
    assert compared["broken_golds"] == 1
    assert compared["without_broken_golds"]["precision"] == 1
    assert compared["precision"] < 1


def test_without_a_statement_there_are_no_figures() -> None:
    compared = compare_reports(paired(("", "")))
    assert (compared["precision"], compared["recall"], compared["f1"]) == (None, None, None)
