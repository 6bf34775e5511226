"""Options of ECG-QA: whole words, the longest first, golds in every form."""

from __future__ import annotations

import pytest

from pulse_edge.evaluate.ecgbench.strict_options import (
    gold_options,
    prompt_options,
    question_type,
    read_options,
)

OPTIONS = ("yes", "no", "not sure", "lead i", "lead ii", "lead v1", "none", "normal", "st-t change")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("yes", {"yes"}),
        ("No.", {"no"}),
        ("normal", {"normal"}),
        ("unknown", set()),
        ("Not sure", {"not sure"}),
        ("lead II", {"lead ii"}),
        ("lead I, lead II", {"lead i", "lead ii"}),
        ("Lead V1 and lead I", {"lead v1", "lead i"}),
        ("The answer is yes.", {"yes"}),
        ("lead  V1", {"lead v1"}),
        ("None", {"none"}),
        ("abnormal", set()),
        ("st-t change; no", {"st-t change", "no"}),
        ("lead III", set()),
        ("", set()),
        ("no-one", set()),
    ],
)
def test_options_are_whole_words(text: str, found: set[str]) -> None:
    assert read_options(text, OPTIONS) == found


@pytest.mark.parametrize(
    ("gold", "named"),
    [
        ("Lead V1", {"lead v1"}),
        (("lead V1",), {"lead v1"}),
        (tuple("lead V1"), {"lead v1"}),
        (("lead I", "lead II"), {"lead i", "lead ii"}),
        ("lead I, lead II", {"lead i", "lead ii"}),
        (tuple("lead I, lead II"), {"lead i", "lead ii"}),
        (("lead I, lead II",), {"lead i", "lead ii"}),
        ("none", {"none"}),
    ],
)
def test_golds_are_read_in_every_form_that_files_have(
    gold: str | tuple[str, ...], named: set[str]
) -> None:
    assert gold_options(gold, OPTIONS) == named


def test_a_trailing_comma_makes_no_option() -> None:
    prompt = (
        "Is it? Options: Yes,  no, Only answer based on the given Options without any explanation."
    )
    assert prompt_options(prompt) == ("yes", "no")


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("Is it normal? Options: yes, no, not sure", "verify"),
        ("Is it lead I or lead II? Options: lead I, lead II, none", "choose"),
        ("Which lead? Options: lead I, lead II", "query"),
    ],
)
def test_questions_have_types(prompt: str, kind: str) -> None:
    assert question_type(prompt_options(prompt), prompt) == kind
