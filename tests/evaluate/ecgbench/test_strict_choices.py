"""Letters that an answer gives, and options of a prompt."""

from __future__ import annotations

import pytest

from pulse_edge.evaluate.ecgbench.strict_choices import lettered_options, read_letter

OPTIONS = {
    "A": "normal ecg",
    "B": "lbbb",
    "C": "bradycardia",
    "D": "sinus bradycardia",
    "E": "pvc",
}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("C ", "C"),
        ("(C)", "C"),
        ("C) RBBB", "C"),
        ("C.", "C"),
        ("C: x", "C"),
        ("**C**", "C"),
        ("c", "C"),
        ("c. x", "C"),
        ("C RBBB", "C"),
        ("\n C\n", "C"),
        ("A", "A"),
        ("A. Normal ECG", "A"),
        ("A wide QRS", None),
        ("A normal ECG", "A"),  # by its text, the article aside
        ("D. not B. because", "D"),
        ("The answer is C", "C"),
        ("The correct option is (C)", "C"),
        ("The correct option is c. Answer: D", "D"),
        ("Answer: B", "B"),
        ("Answer:B", "B"),
        ("answer choice d.", "D"),
        ("The best answer is option E because", "E"),
        ("Not option A; the answer must be B", "B"),
        ("This is a normal ECG.", "A"),
        ("It shows LBBB.", "B"),
        ("Answer: Sinus Bradycardia", "D"),
        ("Answer: a bradycardia", "C"),
        ("LBBB and PVC", None),
        ("", None),
        ("none of these", None),
        ("H", None),
        ("The answer is F", None),
        ("D-dimer", None),
        ("Abnormal ECG", None),
    ],
)
def test_a_letter_is_read_only_where_the_answer_gives_one(text: str, letter: str | None) -> None:
    assert read_letter(text, OPTIONS) == letter


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("Which?\nA. x y\nB. z", {"A": "x y", "B": "z"}),
        ("Which? A. x B. y C. z", {"A": "x", "B": "y", "C": "z"}),
        ("Options: A) x, B) y", {"A": "x", "B": "y"}),
        ("(A) x\n(B) Y.\nAnswer with the letter.", {"A": "x", "B": "y"}),
        ("A: x\nB: y", {"A": "x", "B": "y"}),
        ("no options", {}),
    ],
)
def test_options_are_read_from_the_prompt(prompt: str, options: dict[str, str]) -> None:
    assert lettered_options(prompt) == options
