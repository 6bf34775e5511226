"""Free wordings that training uses: a grammar for every intent of `pulse_edge.simulation.intents`.

The texts are in wordings.toml. Those by which `pulse-edge eval --task wording` measures are in
`pulse_edge.simulation.wording_table`; none of them can be made here
(`tests/nano/test_wordings.py`).
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pulse_edge.simulation.intents import CHECKS, FOLLOW_UPS, MEASURED, TOPIC_INTENTS, topic_of

PLAIN = 0.45  # share of utterances that do not say of what they speak
UNOPENED = 0.6  # share of utterances without an opening
# How often training asks for each group of intents, in first turns.
SINGLE: tuple[tuple[tuple[str, ...], float], ...] = (
    (TOPIC_INTENTS, 0.4),
    (CHECKS, 0.38),
    (MEASURED, 0.1),
    (("beyond",), 0.07),
    (("report",), 0.03),
    (("greeting",), 0.02),
)


@lru_cache(maxsize=1)
def grammar() -> dict[str, Any]:
    """wordings.toml: lines as tuples, by name and by intent."""
    tables = tomllib.loads((Path(__file__).parent / "wordings.toml").read_text("utf-8"))
    return {
        name: {intent: _lines(text) for intent, text in value.items()}
        if isinstance(value, dict)
        else _lines(value)
        for name, value in tables.items()
    }


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.strip().splitlines())


def wording(intent: str, rng: np.random.Generator, later: bool = False) -> str:
    """A random utterance.

    Args:
        intent: see `intents`.
        rng: chooses.
        later: for a later turn, where it may be elliptic.
    """
    texts = grammar()
    if intent.startswith("is "):
        thing = _pick(texts["things"][intent.removeprefix("is ")], rng)
        with_article, bare = thing.split(" | ")
        text = _pick(texts["check"], rng).replace("{a}", with_article).replace("{x}", bare)
    elif intent in texts["nouns"] and rng.random() < 0.5:
        form = _pick(texts["ellipses" if later else "ask"], rng)
        text = form.replace("{x}", _pick(texts["nouns"][intent], rng))
    else:
        text = _pick(texts["whole"][intent], rng)
    where = "" if rng.random() < PLAIN else f" {_pick(texts['where'], rng)}"
    return _typed(text.replace("{w}", where), rng)


def _pick(texts: tuple[str, ...], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def _typed(text: str, rng: np.random.Generator) -> str:
    """As people type: with or without an opening, capitals and a mark at the end."""
    if rng.random() < UNOPENED:
        text = text[:1].upper() + text[1:]
    else:
        abbreviation = text[1:2].isupper() or text[1:2] == "-"
        rest = text if abbreviation else text[:1].lower() + text[1:]
        text = f"{_pick(grammar()['openings'], rng)} {rest}"
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip("?.!") or text
    return text


def sample_intent(rng: np.random.Generator) -> str:
    """A random intent of a first turn."""
    at = int(rng.choice(len(SINGLE), p=[share for _, share in SINGLE]))
    return _pick(SINGLE[at][0], rng)


def sample_follow_up(before: str, rng: np.random.Generator) -> str:
    """A random intent of a turn that follows one with the intent `before`."""
    topic = topic_of(before)
    chance = rng.random()
    if chance < 0.5:
        fitting = [
            intent
            for intent in FOLLOW_UPS
            if not (intent == "where" and topic != "st")
            and not (intent == "which" and topic in ("", "normal"))
        ]
        return _pick(tuple(fitting), rng)
    intent = _pick(TOPIC_INTENTS, rng) if chance < 0.8 else sample_intent(rng)
    # "Is it normal?" after a measurement asks about the measurement.
    return "that normal" if intent == "normal" and topic in ("rate", "pr", "qrs") else intent
