"""The authors' functions as they are, quirks and random stream included (`upstream` and `gem`).

They compare substrings. Each configuration starts a fresh `random.seed(42)`, and answers count in
the order of their file: the numbers are those that the authors' file gives for one configuration
alone, with its gate on the number of answers lifted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS, BenchConfig
from pulse_edge.evaluate.ecgbench.reading import Paired, Reading, label_reading
from pulse_edge.evaluate.ecgbench.run_file import AnswerLine

SEED = 42
EXTRACTED = "ABCDEFGH"
FIXED = "Only answer based on the given Options without any explanation."
_PHRASE = "The correct option is "

OptionsReader = Callable[[Sequence[str], AnswerLine], list[str]]


def substring_labels(text: str, space: Iterable[str]) -> list[str]:
    """Codes that occur anywhere in a text.

    Args:
        text: an answer or a gold.
        space: the codes, in the order in which they are returned.
    """
    return [label for label in space if label in text]


def stated_labels(text: str, configuration: BenchConfig) -> list[str]:
    """Labels that the authors' functions read of an answer.

    Args:
        text: the answer.
        configuration: with its label space.
    """
    if not configuration.whole:
        return substring_labels(text, configuration.space)
    text = text.rpartition("Answer:")[2]
    verdict = ["ABNORMAL"] if "ABNORMAL" in text else ["NORM"] if "NORM" in text else []
    return verdict + substring_labels(text, configuration.space)


def gold_labels(gold: str, configuration: BenchConfig) -> list[str]:
    """Labels that the authors' functions read of a gold.

    Args:
        gold: as the file has it.
        configuration: with its label space.
    """
    if gold in configuration.whole:
        return [gold]
    return substring_labels(gold, configuration.space)


def extract_letter(text: str) -> str | None:
    """The letter that the authors' `extract` reads; None where they guess.

    A text that ends with their phrase makes their function fail; it is None here.

    Args:
        text: the answer.
    """
    if len(text) == 1 and text in EXTRACTED:
        return text
    for letter in EXTRACTED:
        if f"{letter}." in text:
            return letter
    if _PHRASE in text:
        letter = text.rpartition(_PHRASE)[2][:1]
        return letter if letter and letter in EXTRACTED else None
    if "Answer:" not in text:
        return None
    after = text.rpartition("Answer:")[2]
    return next((letter for letter in EXTRACTED if letter in after), None)


def prompt_candidates(prompt: str) -> list[str]:
    """Options of an ECG-QA prompt as the authors' functions split them.

    Args:
        prompt: of the answer's line.
    """
    listed = prompt.rpartition("Options:")[2].replace(FIXED, "")
    return [option.strip() for option in listed.split(",")]


def pulse_options(candidates: Sequence[str], line: AnswerLine) -> list[str]:
    """Options that PULSE's function finds: the answer is lowered, the options are not.

    Args:
        candidates: of the prompt.
        line: with the answer.
    """
    low = (line.text or "").lower()
    return [option for option in candidates if option in low]


def gem_options(candidates: Sequence[str], line: AnswerLine) -> list[str]:
    """Characters of the options that GEM's function finds, to be compared as a set.

    Both sides are lowered, except in the baselines' lines, where GEM kept PULSE's comparison.

    Args:
        candidates: of the prompt.
        line: with the answer.
    """
    if line.baseline:
        return list("".join(pulse_options(candidates, line)))
    low = (line.text or "").lower()
    return list("".join(option for option in candidates if option.lower() in low))


def read_upstream(paired: Paired) -> Reading:
    """PULSE's reading of a configuration.

    Args:
        paired: its items and answers.
    """
    return _authors_reading(paired, pulse_options)


def read_gem(paired: Paired) -> Reading:
    """GEM's reading of a configuration: only ECG-QA differs.

    Args:
        paired: its items and answers.
    """
    return _authors_reading(paired, gem_options)


def _authors_reading(paired: Paired, options: OptionsReader) -> Reading:
    kind = CONFIGURATIONS[paired.config].kind
    if kind == "labels":
        return _read_labels(paired)
    return _read_choices(paired) if kind == "choice" else _read_options(paired, options)


def _read_labels(paired: Paired) -> Reading:
    configuration = CONFIGURATIONS[paired.config]
    stated: list[list[str]] = [[] for _ in paired.items]
    places = paired.places
    before: list[str] = []
    for line in paired.lines:
        # A line without an answer gets the prediction of the line before, as with the authors.
        before = before if line.text is None else stated_labels(line.text, configuration)
        stated[places[line.question_id]] = before
    golds = [gold_labels(gold_text(item.gold), configuration) for item in paired.items]
    return label_reading((*configuration.whole, *configuration.space), golds, stated)


def _read_choices(paired: Paired) -> Reading:
    configuration = CONFIGURATIONS[paired.config]
    stream = random.Random(SEED)
    stated = [""] * len(paired.items)
    places = paired.places
    letter: str | None = None
    guessed = 0
    for line in paired.lines:
        if line.text is not None:
            letter = extract_letter(line.text)
            if letter is None:
                letter = stream.choice(configuration.letters)
                guessed += 1
        stated[places[line.question_id]] = letter or ""
    golds = [gold_text(item.gold) for item in paired.items]
    if configuration.first_letter:
        golds = [gold[:1] for gold in golds]
    right = np.array([a == b != "" for a, b in zip(stated, golds, strict=True)], bool)
    nothing = np.array([not letter for letter in stated], bool)
    return Reading(right, None, stated, golds, nothing, guessed)


def _read_options(paired: Paired, options: OptionsReader) -> Reading:
    stated = [""] * len(paired.items)
    right = np.zeros(len(paired.items), bool)
    places = paired.places
    candidates: list[str] | None = None
    found: list[str] = []
    for line in paired.lines:
        place = places[line.question_id]
        item = paired.items[place]
        if line.prompt is not None or candidates is None:
            candidates = prompt_candidates(item.prompt if line.prompt is None else line.prompt)
        if line.text is not None:
            found = options(candidates, line)
        right[place] = set(found) == set(item.gold)
        stated[place] = ", ".join(dict.fromkeys(found))
    golds = [
        ", ".join([item.gold] if isinstance(item.gold, str) else item.gold) for item in paired.items
    ]
    return Reading(right, None, stated, golds, np.array([not each for each in stated], bool))


def gold_text(gold: str | Sequence[str]) -> str:
    """A gold of a configuration whose golds are strings.

    Args:
        gold: as the file has it. A list holds its characters, or one string.
    """
    return gold if isinstance(gold, str) else "".join(gold)
