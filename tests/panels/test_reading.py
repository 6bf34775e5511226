"""Which option an answer is: exactly one of them, or none."""

from __future__ import annotations

import pytest

from pulse_edge.panels.panel import INSTRUCTION, PanelQuestion
from pulse_edge.panels.reading import is_refusal, read_option

RHYTHM = PanelQuestion(
    "rhythm", "What is the rhythm?", ("sinus rhythm", "atrial fibrillation", "none of these")
)
PLAIN = PanelQuestion(
    "normal",
    "Is this ECG normal?",
    ("normal", "abnormal"),
    "plain",
    ("Yes, this is a normal ECG.", "No, this is an abnormal ECG."),
)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("sinus rhythm", "sinus rhythm"),
        ("Sinus Rhythm.", "sinus rhythm"),
        ("  sinus\n rhythm  ", "sinus rhythm"),
        ('"sinus rhythm"', "sinus rhythm"),
        ("“Atrial  fibrillation.”", "atrial fibrillation"),
        ("NONE OF THESE", "none of these"),
        ("sinus", None),
        ("sinus rhythm, atrial fibrillation", None),
        ("no atrial fibrillation", None),
        ("atrial fibrillation is likely", None),
        ("The rhythm is sinus rhythm", None),
        ("sinus rhythm..", None),
        ("", None),
    ],
)
def test_an_answer_is_an_option_or_none(text: str, option: str | None) -> None:
    choice = read_option(text, RHYTHM)
    assert (choice and choice.option) == option
    if choice is not None:
        start, stop = choice.span
        assert " ".join(text[start:stop].split()).casefold() == choice.option


def test_a_reply_stands_for_its_option() -> None:
    choice = read_option("no, this is an abnormal ECG", PLAIN)
    assert choice is not None
    assert (choice.option, choice.span) == ("abnormal", (0, 27))
    alone = read_option("Normal.", PLAIN)
    assert alone is not None
    assert (alone.option, alone.span) == ("normal", (0, 6))


def test_refusals_are_whole_answers() -> None:
    assert is_refusal(
        "no ECG can be read from this image", ("No ECG can be read from this image.",)
    )
    assert not is_refusal("No ECG can be read.", ("No ECG can be read from this image.",))


def test_the_prompt_has_the_form_that_pulse_was_trained_on() -> None:
    assert RHYTHM.prompt == (
        "What is the rhythm?\nOptions: sinus rhythm, atrial fibrillation, none of these\n"
        "Only answer based on the given Options without any explanation."
    )
    assert RHYTHM.prompt.endswith(INSTRUCTION)
    assert PLAIN.prompt == "Is this ECG normal?"
    assert PLAIN.texts == PLAIN.replies
    assert RHYTHM.texts == RHYTHM.options
    assert PanelQuestion("report", "Write a report.").prompt == "Write a report."
