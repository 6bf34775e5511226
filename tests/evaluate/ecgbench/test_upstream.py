"""The authors' functions, by the examples that were executed with their code."""

from __future__ import annotations

import random

import pytest

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.run_file import AnswerLine
from pulse_edge.evaluate.ecgbench.upstream import (
    extract_letter,
    gem_options,
    gold_labels,
    prompt_candidates,
    pulse_options,
    stated_labels,
)

FIXED = "Only answer based on the given Options without any explanation."


def line(text: str, baseline: bool = False) -> AnswerLine:
    return AnswerLine("q", text, None, baseline, (), {})


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"),
        ("This is a normal ECG.", "G"),
        ("It shows LBBB.", "B"),
        ("D. not B. because", "B"),
        ("Answer: Sinus Bradycardia", "B"),
        ("C ", None),
        ("(C)", None),
        ("C) RBBB", None),
        ("The answer is C", None),
        ("The correct option is (C)", None),
        ("The correct option is c. Answer: D", None),
        ("The correct option is D", "D"),
        ("The correct option is D, not The correct option is F", "F"),
        ("The correct option is I", None),
        ("The correct option is ", None),
        ("", None),
        ("AB", None),
        ("I", None),
        ("Answer: none", None),
        ("Answer: D or C", "C"),
        ("Answer: A Answer: H", "H"),
    ],
)
def test_extract_reads_the_letter_that_the_authors_function_reads(
    text: str, letter: str | None
) -> None:
    assert extract_letter(text) == letter


@pytest.mark.parametrize(
    ("config", "text", "labels"),
    [
        ("ptb-test", "ABNORMAL", ["NORM"]),
        ("ptb-test", "NORMAL", ["NORM"]),
        ("ptb-test", "STEMI", ["MI"]),
        ("ptb-test", "norm", []),
        ("cpsc-test", "II-AVB", ["I-AVB"]),
        ("cpsc-test", "LAFB", ["AF"]),
        ("cpsc-test", "STEMI", ["STE"]),
        ("cpsc-test", "ABNORMAL", ["NORM"]),
        ("code15-test", "ABNORMAL", ["ABNORMAL"]),
        ("code15-test", "NORMAL", ["NORM"]),
        ("code15-test", "NORM ABNORMAL", ["ABNORMAL"]),
        ("code15-test", "ST depression", ["ST"]),
        ("code15-test", "STTC", ["ST"]),
        ("code15-test", "STEMI", ["ST"]),
        ("code15-test", "RBBB Answer: LBBB Answer: SB", ["SB"]),
        ("code15-test", "NORM; ST", ["NORM", "ST"]),
    ],
)
def test_labels_are_substrings(config: str, text: str, labels: list[str]) -> None:
    assert stated_labels(text, CONFIGURATIONS[config]) == labels


@pytest.mark.parametrize(
    ("gold", "labels"),
    [
        ("NORM", ["NORM"]),
        ("ABNORMAL", ["ABNORMAL"]),
        ("ABNORMAL; ST", ["ST"]),
        ("1dAVb; AF", ["1dAVb", "AF"]),
        ("NORM ", []),
    ],
)
def test_golds_of_code15_are_normal_only_as_a_whole(gold: str, labels: list[str]) -> None:
    assert gold_labels(gold, CONFIGURATIONS["code15-test"]) == labels


def test_options_are_what_follows_the_last_mark() -> None:
    prompt = f"Options: x Options: yes, no, not sure {FIXED}"
    assert prompt_candidates(prompt) == ["yes", "no", "not sure"]
    assert prompt_candidates("Options: yes, no,") == ["yes", "no", ""]


@pytest.mark.parametrize(
    ("candidates", "text", "pulse", "gem"),
    [
        (["yes", "no"], "Normal", ["no"], ["no"]),
        (["yes", "no"], "unknown", ["no"], ["no"]),
        (["no", "not sure"], "Not sure", ["no", "not sure"], ["no", "not sure"]),
        (["lead V1"], "lead V1", [], ["lead V1"]),
        (["None"], "None", [], ["None"]),
        (["lead I", "lead II"], "lead II", [], ["lead I", "lead II"]),
        (["yes", ""], "yes", ["yes", ""], ["yes", ""]),
    ],
)
def test_options_are_found_anywhere(
    candidates: list[str], text: str, pulse: list[str], gem: list[str]
) -> None:
    assert pulse_options(candidates, line(text)) == pulse
    assert gem_options(candidates, line(text)) == list("".join(gem))


def test_gem_keeps_pulses_comparison_for_lines_of_the_baselines() -> None:
    assert gem_options(["lead V1"], line("lead V1", baseline=True)) == []
    assert gem_options(["yes"], line("Yes", baseline=True)) == ["y", "e", "s"]


def test_guesses_are_pythons_own_stream_of_seed_42() -> None:
    random.seed(42)
    assert "".join(random.choice("ABCDEFGH") for _ in range(8)) == "BAEDDCBB"
