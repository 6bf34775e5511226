"""Letters as `strict` reads them: where the answer gives one, else its one option's text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.reading import Paired, Reading, confusion_table
from pulse_edge.evaluate.ecgbench.strict_options import option_shares, options_in, plain
from pulse_edge.evaluate.ecgbench.upstream import gold_text

_MARKS = {letter: re.compile(rf"(?:(?<=[\s,;(])|^)\(?{letter}[.):]\s*") for letter in "ABCDEFGH"}
# A letter at the start of the answer: alone, before punctuation, or before a space.
_LEADING = re.compile(r"[\s(\[*\"'`]*([A-Ha-h])(?=([).:,;\]*\"'`]+|\s+\S|\s*$))")
# "… answer is C", "the correct option is (C)", "Answer: C", "answer is option C".
_BETWEEN = r"(?i:is|are|was|be|would|should|must|the|correct|best|most|likely|choice|option|letter)"
_FINAL = re.compile(
    rf"\b(?i:answer|option|choice)s?\b(?:[\s:=*(\[\"'`-]+{_BETWEEN}\b)*[\s:=*(\[\"'`-]+"
    r"([A-H](?![A-Za-z0-9'-])|[a-h](?=[).:,;\]*\"'`]|\s*$))"
)


@lru_cache(maxsize=4096)
def lettered_options(prompt: str) -> Mapping[str, str]:
    """Options that a prompt lists as `A. text`, `A) text` or `(A) text`: letter -> plain text.

    Letters count from A without a gap.

    Args:
        prompt: of the item.
    """
    marks: list[re.Match[str]] = []
    start = 0
    for letter in _MARKS:
        mark = _MARKS[letter].search(prompt, start)
        if mark is None:
            break
        marks.append(mark)
        start = mark.end()
    if len(marks) < 2:  # "A." alone is not a list
        return {}
    ends = [mark.start() for mark in marks[1:]] + [len(prompt)]
    texts = [prompt[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    texts[-1] = texts[-1].split("\n", 1)[0]
    return {letter: plain(text) for letter, text in zip(_MARKS, texts, strict=False)}


def read_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter that an answer gives; None if it gives none that is an option.

    Args:
        text: the answer.
        options: letter -> text in plain form; "" where the prompt lists no text.
    """
    letter = _leading(text) or _last(text)
    if letter:
        return letter if letter in options else None
    written = [text for text in options.values() if text]
    found = options_in(plain(text), written)
    letters = [letter for letter, option in options.items() if option in found]
    return letters[0] if len(letters) == 1 else None


def _leading(text: str) -> str | None:
    match = _LEADING.match(text)
    if match is None:
        return None
    letter, after = match.groups()
    before_word = after[:1].isspace() and after.strip() != ""
    # "A normal ECG": the article. A small letter before a word is a word.
    if before_word and (letter == "A" or letter.islower()):
        return None
    return letter.upper()


def _last(text: str) -> str | None:
    letters = [match[1] for match in _FINAL.finditer(text)]
    return letters[-1].upper() if letters else None


def read_strict_choices(paired: Paired) -> Reading:
    """The strict reading of a multiple-choice configuration.

    Args:
        paired: its items and answers.
    """
    configuration = CONFIGURATIONS[paired.config]
    answers = paired.by_question
    stated = []
    golds = []
    chances = []
    by_option: dict[str, list[bool]] = {}
    for item in paired.items:
        options = lettered_options(item.prompt) or dict.fromkeys(configuration.letters, "")
        line = answers.get(item.id)
        stated.append(read_letter(line.text or "", options) or "" if line else "")
        gold = gold_text(item.gold).strip()
        golds.append(gold[:1].upper())
        chances.append(1 / len(options))
        right_option = options.get(golds[-1]) or golds[-1]
        by_option.setdefault(right_option, []).append(stated[-1] == golds[-1] != "")
    right = np.array([a == b != "" for a, b in zip(stated, golds, strict=True)], bool)
    nothing = np.array([not letter for letter in stated], bool)
    guesses = float(right.sum() + np.array(chances)[nothing].sum()) / max(len(right), 1)
    confusion = confusion_table(
        [[gold] for gold in golds], [[each] if each else [] for each in stated]
    )
    notes = {
        "accuracy_with_guesses": guesses,
        "by_option": option_shares(by_option),
        "confusion": confusion,
    }
    return Reading(right, None, stated, golds, nothing, notes=notes)
