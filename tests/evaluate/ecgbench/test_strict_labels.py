"""Labels as whole codes, or as the long names that the prompt lists."""

from __future__ import annotations

import pytest

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.strict_labels import listed_names, whole_labels

PTB = (
    "Choose of NORM(normal ecg), MI (Myocardial  Infarction), STTC(ST/T change), CD, "
    "HYP(hypertrophy)."
)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("NORM", ["NORM"]),
        ("ABNORMAL", []),
        ("NORMAL", []),
        ("STEMI", []),
        ("MI.", ["MI"]),
        ("(MI)", ["MI"]),
        ("MI/CD", ["MI", "CD"]),
        ("HYP; MI", ["MI", "HYP"]),
        ("x-MI", []),
        ("MI-x", []),
        ("MI2", []),
        ("mi", []),
        ("Normal ECG", ["NORM"]),
        ("abnormal ECG", []),
        ("This is an abnormal ECG, a myocardial\ninfarction", ["MI"]),
        ("st/t changes", []),
        ("ST/T change", ["STTC"]),
        ("conduction disturbance", []),
        ("hypertrophy, CD", ["CD", "HYP"]),
        ("", []),
        ("ÄMI", ["MI"]),
        ("NORM and MI", ["NORM", "MI"]),
    ],
)
def test_codes_are_whole_and_names_are_those_of_the_prompt(text: str, labels: list[str]) -> None:
    assert whole_labels(text, PTB, CONFIGURATIONS["ptb-test"].space) == labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [("II-AVB", []), ("LAFB", []), ("STEMI", []), ("I-AVB; AF", ["AF", "I-AVB"]), ("STE", ["STE"])],
)
def test_codes_of_cpsc_do_not_match_inside_others(text: str, labels: list[str]) -> None:
    assert whole_labels(text, "", CONFIGURATIONS["cpsc-test"].space) == labels


def test_names_are_not_read_without_a_prompt_that_lists_them() -> None:
    assert whole_labels("hypertrophy", "Choose.", ("HYP",)) == []
    assert dict(listed_names("II-AVB(x), I-AVB(first degree)", ("I-AVB",))) == {
        "I-AVB": "first degree"
    }
