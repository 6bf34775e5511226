"""Questions and conversations about a page in the words of `wording_table`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulse_edge.simulation.intents import (
    CHECKED,
    FOLLOW_UPS,
    MEASURED,
    TOPIC_INTENTS,
    reply,
    right_replies,
    topic_of,
)
from pulse_edge.simulation.questions import Findings
from pulse_edge.simulation.wording_table import CHECKS_ASKED, FIRST, LATER, THINGS_ASKED


@dataclass(frozen=True)
class Spoken:
    """One turn: its intent, the utterance, and the right answers, the plainest first."""

    intent: str
    text: str
    right: tuple[str, ...]


def spoken(intent: str, f: Findings | None, rng: np.random.Generator, before: str = "") -> Spoken:
    """A turn in held-out words.

    Args:
        intent: of a first turn; of a later one if `before` is given.
        f: what the page shows; None: no ECG.
        rng: chooses the wording.
        before: the intent of the turn before.
    """
    if intent.startswith("is "):
        things = THINGS_ASKED[intent.removeprefix("is ")]
        thing = things[int(rng.integers(len(things)))]
        text = CHECKS_ASKED[int(rng.integers(len(CHECKS_ASKED)))].replace("{a}", thing)
    else:
        texts = LATER[intent] if before else FIRST[intent]
        text = texts[int(rng.integers(len(texts)))]
    return Spoken(intent, text, right_replies(intent, f, before))


def first_turns(f: Findings | None, rng: np.random.Generator) -> list[Spoken]:
    """Ten first turns: four topics, four checks, one of the rest, and a report or what no page
    tells. Half of the checks ask for something that the page shows.

    Args:
        f: what the page shows.
        rng: chooses.
    """
    topics = rng.permutation(TOPIC_INTENTS)[:4]
    shown = [name for name in CHECKED if f is not None and _shows(f, name)]
    checks = [str(name) for name in rng.permutation(shown)[:2]]
    checks += [str(name) for name in rng.permutation(CHECKED)[: 4 - len(checks)]]
    last = ("report", "beyond")[int(rng.integers(2))]
    intents = [
        *map(str, topics),
        *(f"is {name}" for name in checks),
        str(rng.choice(MEASURED)),
        last,
    ]
    return [spoken(intent, f, rng) for intent in intents]


def _shows(f: Findings, name: str) -> bool:
    return reply(f"is {name}", f).startswith("Yes")


def conversation(f: Findings | None, rng: np.random.Generator) -> list[Spoken]:
    """Three turns: a topic or a check, something that refers to it, and another topic.

    Args:
        f: what the page shows.
        rng: chooses.
    """
    names = ("bundle branch block", "AV block", "ectopic beats", "ST elevation")
    first = str(rng.choice([*TOPIC_INTENTS[:9], *(f"is {name}" for name in names)]))
    topic = topic_of(first)
    fitting = [intent for intent in FOLLOW_UPS if intent != "where" or topic == "st"]
    if topic in ("rate", "pr", "qrs", "axis", "lvh"):
        fitting.remove("which")
    second = str(rng.choice(fitting))
    others = [intent for intent in LATER if intent not in (*FOLLOW_UPS, topic)]
    third = str(rng.choice(others))
    return [
        spoken(first, f, rng),
        spoken(second, f, rng, first),
        spoken(third, f, rng, first),
    ]
