"""Held-out wordings cover every intent, and their answers come from the page."""

from __future__ import annotations

import numpy as np

from pulse_edge.simulation.intents import CHECKED, FOLLOW_UPS, MEASURED, TOPIC_INTENTS, reply
from pulse_edge.simulation.wording_table import CHECKS_ASKED, FIRST, LATER, THINGS_ASKED
from pulse_edge.simulation.wordings import conversation, first_turns
from pulse_nano.lessons import random_findings


def test_every_intent_has_wordings() -> None:
    assert {*TOPIC_INTENTS, *MEASURED, "report", "beyond"} == set(FIRST)
    assert set(CHECKED) == set(THINGS_ASKED)
    assert set(FOLLOW_UPS) < set(LATER)
    assert all("{a}" in text for text in CHECKS_ASKED)


def test_no_wording_has_two_meanings() -> None:
    texts = [text for group in FIRST.values() for text in group]
    assert len(texts) == len(set(texts))
    later = [text for group in LATER.values() for text in group]
    assert len(later) == len(set(later))


def test_the_same_seed_asks_the_same() -> None:
    findings = random_findings(np.random.default_rng(4))
    turns = [
        (
            first_turns(findings, np.random.default_rng(s)),
            conversation(findings, np.random.default_rng(s)),
        )
        for s in (1, 1, 2)
    ]
    assert turns[0] == turns[1] != turns[2]


def test_turns_expect_what_the_page_shows() -> None:
    rng = np.random.default_rng(5)
    asked: set[str] = set()
    for _ in range(60):
        findings = random_findings(rng)
        for turn in first_turns(findings, rng):
            assert turn.right[0] == reply(turn.intent, findings)
            asked.add(turn.intent)
        first, second, third = conversation(findings, rng)
        assert second.intent in FOLLOW_UPS
        assert second.right[0] == reply(second.intent, findings, first.intent)
        assert third.right[0] == reply(third.intent, findings, first.intent)
    assert len(asked) > 40


def test_half_of_the_checks_are_about_something_that_is_there() -> None:
    rng = np.random.default_rng(6)
    verdicts = [
        turn.right[0].startswith("Yes")
        for _ in range(100)
        for turn in first_turns(random_findings(rng), rng)
        if turn.intent.startswith("is ")
    ]
    assert 0.4 < np.mean(verdicts) < 0.75
