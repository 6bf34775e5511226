"""Reads which option an answer chooses. What is not exactly an option is none: never a guess."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pulse_edge.panels.panel import PanelQuestion

_AROUND = " \t\r\n\"'`*“”‘’«»"  # white space and quotation marks


@dataclass(frozen=True)
class Choice:
    """The option that an answer chooses, and the characters of the answer that say so."""

    option: str
    span: tuple[int, int]


def normalised(text: str) -> str:
    """A text as it is compared: case, white space, quotation marks and a final full stop aside."""
    bare = text.strip(_AROUND).removesuffix(".").strip(_AROUND)
    return re.sub(r"\s+", " ", bare).casefold()


def read_option(text: str, question: PanelQuestion) -> Choice | None:
    """The option that an answer is; None if it is none of them.

    Args:
        text: a whole answer, not one that was cut off.
        question: that it answers.
    """
    said = normalised(text)
    for option, reply in zip(question.options, question.texts, strict=True):
        if said in (normalised(option), normalised(reply)):
            inside = text.strip(_AROUND).removesuffix(".").strip(_AROUND)
            start = text.index(inside)
            return Choice(option, (start, start + len(inside)))
    return None


def is_refusal(text: str, refusals: tuple[str, ...]) -> bool:
    """Whether an answer says that the image shows no ECG."""
    return normalised(text) in {normalised(refusal) for refusal in refusals}
