"""Questions agree with their answers."""

from __future__ import annotations

import numpy as np

from pulse_edge.simulation.questions import (
    CHOICES,
    NO_ECG,
    QUESTIONS,
    ask,
    parse_report,
    report,
)
from pulse_nano.lessons import random_findings, training_items


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
