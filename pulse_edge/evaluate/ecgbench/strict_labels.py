"""Labels as `strict` reads them: whole codes, or the long names that the prompt itself lists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pulse_edge.evaluate.ecgbench.configurations import CONFIGURATIONS
from pulse_edge.evaluate.ecgbench.metrics import class_table
from pulse_edge.evaluate.ecgbench.reading import Paired, Reading, confusion_table, label_reading
from pulse_edge.evaluate.ecgbench.upstream import gold_text

NORMAL = "NORM"
_BEFORE = r"(?<![A-Za-z0-9-])"
_AFTER = r"(?![A-Za-z0-9-])"
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


@lru_cache(maxsize=4096)
def listed_names(prompt: str, space: tuple[str, ...]) -> Mapping[str, str]:
    """Long names that a prompt lists as `CODE(long name)`: code -> name in lower case.

    Args:
        prompt: of the item.
        space: the codes.
    """
    names = {}
    for code in space:
        match = re.search(rf"{_BEFORE}{re.escape(code)}\s?\(([^()]*)\)", prompt)
        name = " ".join(match[1].split()).lower() if match else ""
        if name:
            names[code] = name
    return names


def whole_labels(text: str, prompt: str, space: tuple[str, ...]) -> list[str]:
    """Labels that a text states, in the order of the space.

    Args:
        text: an answer or a gold.
        prompt: that may list long names.
        space: the codes.
    """
    names = listed_names(prompt, space)
    low = " ".join(text.split()).lower()
    return [code for code in space if _stands(code, text) or _stands(names.get(code), low)]


def _stands(word: str | None, text: str) -> bool:
    if not word or word not in text:  # the search costs more than this test
        return False
    return _whole_word(word).search(text) is not None


@lru_cache(maxsize=1024)
def _whole_word(word: str) -> re.Pattern[str]:
    return re.compile(f"{_BEFORE}{re.escape(word)}{_AFTER}")


def read_strict_labels(paired: Paired) -> Reading:
    """The strict reading of a configuration with several labels.

    Args:
        paired: its items and answers.
    """
    configuration = CONFIGURATIONS[paired.config]
    space = (*configuration.whole, *configuration.space)
    answers = paired.by_question
    texts = [line.text or "" if (line := answers.get(item.id)) else "" for item in paired.items]
    stated = [
        whole_labels(text, item.prompt, space)
        for text, item in zip(texts, paired.items, strict=True)
    ]
    golds = [whole_labels(gold_text(item.gold), item.prompt, space) for item in paired.items]
    reading = label_reading(space, golds, stated)
    assert reading.labelled is not None
    return dataclasses.replace(
        reading,
        notes={
            "contradictions": sum(NORMAL in each and len(each) > 1 for each in stated),
            "golds_outside": sum(_outside(gold_text(item.gold), space) for item in paired.items),
            "classes": class_table(reading.labelled),
            "confusion": confusion_table(golds, stated),
        },
    )


def _outside(gold: str, space: Sequence[str]) -> bool:
    """Whether a gold that is a list of codes has one that is not of the space."""
    parts = [part.strip() for part in re.split(r"[;,]", gold)]
    return any(_CODE.fullmatch(part) and part not in space for part in parts)
