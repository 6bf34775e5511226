"""The right answer to a question in free words, and how answers are compared with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pulse_edge.simulation.intents import (
    CHECKS,
    FOLLOW_UPS,
    HELP,
    MEASURED,
    SURE,
    TOPIC_INTENTS,
    UNKNOWN,
    is_letter,
    reply,
    reply_right,
    right_replies,
    topic_of,
)
from pulse_edge.simulation.questions import CANNOT, NO_ECG, Findings

PLAIN = Findings(75, "sinus rhythm", 160, 90, (), "none", "none", False, "normal axis")
ILL = Findings(
    112,
    "atrial fibrillation",
    None,
    140,
    ("right bundle branch block",),
    "premature ventricular contractions",
    "inferior ST elevation",
    False,
    "left axis deviation",
)
BLOCK = replace(PLAIN, rate=48, pr=260, rhythm="sinus bradycardia", conduction=(
    "first-degree AV block", "left bundle branch block"), qrs=140)  # fmt: skip


@pytest.mark.parametrize(
    ("intent", "findings", "expected"),
    [
        ("rate", PLAIN, "The heart rate is 75 bpm."),
        ("regular", PLAIN, "Yes, the rhythm is regular."),
        ("irregular", PLAIN, "No, the rhythm is regular."),
        ("regularity", PLAIN, "The rhythm is regular."),
        ("regular", ILL, "No, the rhythm is irregular."),
        ("irregular", ILL, "Yes, the rhythm is irregular."),
        ("normal", PLAIN, "Yes, this is a normal ECG."),
        ("abnormal", PLAIN, "No, this is a normal ECG."),
        ("abnormal", ILL, "Yes, this is an abnormal ECG."),
        ("verdict", ILL, "This is an abnormal ECG."),
        ("fast", ILL, "Yes, the heart rate is 112 bpm."),
        ("fast", PLAIN, "No, the heart rate is 75 bpm."),
        ("slow", BLOCK, "Yes, the heart rate is 48 bpm."),
        ("long PR", BLOCK, "Yes, the PR interval is 260 ms."),
        ("long PR", PLAIN, "No, the PR interval is 160 ms."),
        ("long PR", ILL, "The PR interval is not measurable."),
        ("wide QRS", ILL, "Yes, the QRS duration is 140 ms."),
        ("wide QRS", PLAIN, "No, the QRS duration is 90 ms."),
        ("is atrial fibrillation", ILL, "Yes, the rhythm is atrial fibrillation."),
        ("is atrial fibrillation", PLAIN, "No, the rhythm is sinus rhythm."),
        ("is sinus rhythm", BLOCK, "Yes, the rhythm is sinus bradycardia."),
        ("is sinus rhythm", ILL, "No, the rhythm is atrial fibrillation."),
        ("is right bundle branch block", ILL, "Yes, right bundle branch block."),
        ("is left bundle branch block", ILL, "No left bundle branch block."),
        ("is bundle branch block", ILL, "Yes, right bundle branch block."),
        ("is bundle branch block", PLAIN, "No bundle branch block."),
        ("is AV block", BLOCK, "Yes, first-degree AV block."),
        ("is ST elevation", ILL, "Yes, inferior ST elevation."),
        ("is ST elevation", PLAIN, "No ST elevation."),
        ("is ectopic beats", ILL, "Premature ventricular contractions."),
        ("is left axis deviation", ILL, "Yes, left axis deviation."),
        ("is left axis deviation", PLAIN, "No, normal axis."),
        ("is left ventricular hypertrophy", PLAIN, "No left ventricular hypertrophy."),
        ("beyond", PLAIN, UNKNOWN),
        ("greeting", PLAIN, HELP),
    ],
)
def test_reply_states_the_truth(intent: str, findings: Findings, expected: str) -> None:
    assert reply(intent, findings) == expected


@pytest.mark.parametrize(
    ("intent", "before", "findings", "expected"),
    [
        ("which", "is bundle branch block", ILL, "Right bundle branch block."),
        ("which", "conduction", PLAIN, "No conduction abnormality."),
        ("which", "ectopy", ILL, "Premature ventricular contractions."),
        ("which", "beyond", ILL, UNKNOWN),
        ("where", "is ST elevation", ILL, "Inferior ST elevation."),
        ("sure", "rate", ILL, SURE),
        ("that normal", "rate", ILL, "No, the heart rate is 112 bpm."),
        ("that normal", "fast", PLAIN, "Yes, the heart rate is 75 bpm."),
        ("that normal", "pr", BLOCK, "No, the PR interval is 260 ms."),
        ("that normal", "qrs", PLAIN, "Yes, the QRS duration is 90 ms."),
        ("that normal", "axis", ILL, "No, this is an abnormal ECG."),
    ],
)
def test_a_later_turn_speaks_of_the_one_before(
    intent: str, before: str, findings: Findings, expected: str
) -> None:
    assert reply(intent, findings, before) == expected


def test_an_image_without_an_ecg_has_one_answer() -> None:
    intents = (*TOPIC_INTENTS, *MEASURED, *CHECKS, "report", "beyond", *FOLLOW_UPS)
    assert {reply(intent, None, "st") for intent in intents} == {NO_ECG}


@pytest.mark.parametrize("intent", [*TOPIC_INTENTS, *MEASURED, *CHECKS, "report"])
def test_every_intent_has_an_answer_that_compares_equal_to_itself(intent: str) -> None:
    for findings in (PLAIN, ILL, BLOCK):
        text = reply(intent, findings)
        assert reply_right(text, text)
        assert not is_letter(text)


@pytest.mark.parametrize(
    ("intent", "findings", "also"),
    [
        ("is ST elevation", PLAIN, "No ST change."),
        ("is atrial flutter", PLAIN, "The rhythm is sinus rhythm."),
        ("is left axis deviation", PLAIN, "Normal axis."),
        ("is inferior ST elevation", ILL, "Inferior ST elevation."),
        ("is AV block", PLAIN, "No conduction abnormality."),
        ("is AV block", ILL, None),  # "Right bundle branch block." leaves it open
        ("long PR", PLAIN, None),
        ("rate", PLAIN, None),
    ],
)
def test_a_statement_that_leaves_nothing_open_is_right_too(
    intent: str, findings: Findings, also: str | None
) -> None:
    first, *rest = right_replies(intent, findings)
    assert first == reply(intent, findings)
    assert rest == ([] if also is None else [also])


def test_an_unknown_intent_is_an_error() -> None:
    with pytest.raises(ValueError, match="no topic 'weather'"):
        reply("weather", PLAIN)


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("The heart rate is 75 bpm.", "The heart rate is 80 bpm.", True),
        ("The heart rate is 75 bpm.", "The heart rate is 81 bpm.", False),
        ("Yes, the PR interval is 240 ms.", "Yes, the PR interval is 260 ms.", True),
        ("Yes, the PR interval is 230 ms.", "Yes, the PR interval is 260 ms.", False),
        ("No, the PR interval is 200 ms.", "Yes, the PR interval is 210 ms.", False),
        ("Yes, right bundle branch block.", "Right bundle branch block.", True),
        ("Right bundle branch block.", "Yes, right bundle branch block.", False),
        ("No right bundle branch block.", "Yes, right bundle branch block.", False),
        (CANNOT, UNKNOWN, True),
        (UNKNOWN, CANNOT, True),
        ("", UNKNOWN, False),
        ("C. no ectopic beats", "No ectopic beats.", False),
        ("The heart rate is bpm.", "The heart rate is 75 bpm.", False),
    ],
)
def test_answers_are_compared_by_words_and_tolerances(
    text: str, expected: str, right: bool
) -> None:
    assert reply_right(text, expected) is right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C. no ectopic beats", True),
        ("A.", True),
        (" B. sinus rhythm", True),
        ("Anterior ST elevation.", False),
        ("A pause.", False),
        (".", False),
        ("AF.", False),
    ],
)
def test_a_letter_is_told_from_words(text: str, letter: bool) -> None:
    assert is_letter(text) is letter


@pytest.mark.parametrize(
    ("intent", "topic"),
    [
        ("rate", "rate"),
        ("fast", "rate"),
        ("irregular", "rhythm"),
        ("is atrial flutter", "rhythm"),
        ("is AV block", "conduction"),
        ("is ST depression", "st"),
        ("is ectopic beats", "ectopy"),
        ("abnormal", "normal"),
        ("report", ""),
        ("beyond", ""),
    ],
)
def test_an_intent_belongs_to_a_topic(intent: str, topic: str) -> None:
    assert topic_of(intent) == topic
