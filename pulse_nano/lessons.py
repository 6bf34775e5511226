"""What training asks about a page, and truths for text without pages."""

from __future__ import annotations

import numpy as np

from pulse_edge.simulation.intents import CHECKS, FOLLOW_UPS, reply
from pulse_edge.simulation.population import sample_spec
from pulse_edge.simulation.questions import Findings, Item, ask
from pulse_nano.wordings import sample_follow_up, sample_intent, wording

Talk = tuple[Item, ...]  # one conversation: its turns

# How many of each kind a page has on average. The first are fixed forms, see `questions`.
FORMS = {"report": 0.5, "question": 1.6, "choice": 1.5, "detection": 0.4, "refusal": 0.2}
SINGLE_TURNS = 10
CONVERSATIONS = 3


def training_items(findings: Findings | None, rng: np.random.Generator) -> list[Item]:
    """A report and nine random questions in fixed forms: reading the page costs more than all of
    them."""
    tasks = rng.choice(
        ["question", "choice", "detection", "refusal"], 9, p=[0.55, 0.27, 0.13, 0.05]
    )
    return [ask(findings, "report", rng), *(ask(findings, str(task), rng) for task in tasks)]


def training_talks(findings: Findings | None, rng: np.random.Generator) -> list[Talk]:
    """Questions in fixed forms and in free words, and conversations of two or three turns, in a
    random order.

    Args:
        findings: on the page; None: an image without an ECG.
        rng: chooses.
    """
    talks: list[Talk] = []
    for task, mean in FORMS.items():
        count = int(mean) + int(rng.random() < mean % 1)
        talks += [(ask(findings, task, rng),) for _ in range(count)]
    talks += [
        (free_item(_first_intent(findings, rng), findings, rng),) for _ in range(SINGLE_TURNS)
    ]
    talks += [_conversation(findings, rng) for _ in range(CONVERSATIONS)]
    return [talks[int(at)] for at in rng.permutation(len(talks))]


def _first_intent(findings: Findings | None, rng: np.random.Generator) -> str:
    """A random intent; of those that ask for a finding, half ask for one that the page shows."""
    intent = sample_intent(rng)
    if not intent.startswith("is ") or findings is None or rng.random() < 0.5:
        return intent
    shown = [check for check in CHECKS if reply(check, findings).startswith("Yes")]
    return shown[int(rng.integers(len(shown)))]


def free_item(
    intent: str, findings: Findings | None, rng: np.random.Generator, before: str | None = None
) -> Item:
    """One turn in free words.

    Args:
        intent: see `intents`.
        findings: on the page; None: no ECG.
        rng: chooses the wording.
        before: the intent of the turn before; None: this is the first turn.
    """
    text = wording(intent, rng, later=before is not None)
    return Item("free", text, reply(intent, findings, before or ""), intent)


def _conversation(findings: Findings | None, rng: np.random.Generator) -> Talk:
    """Two or three turns; the first is in free words, or in a fixed form."""
    if rng.random() < 0.25:
        first = ask(findings, str(rng.choice(["question", "choice"])), rng)
        before = first.key if first.task == "question" else _choice_topic(first)
    else:
        before = _first_intent(findings, rng)
        first = free_item(before, findings, rng)
    turns = [first]
    for _ in range(1 + int(rng.random() < 0.4)):
        intent = sample_follow_up(before, rng)
        turns.append(free_item(intent, findings, rng, before))
        if intent not in FOLLOW_UPS:
            before = intent
    return tuple(turns)


def _choice_topic(item: Item) -> str:
    """The topic of a multiple choice, by its question."""
    words = {"rhythm": "rhythm", "conduction": "conduction", "ST finding": "st"}
    return next((topic for word, topic in words.items() if word in item.question[:40]), "ectopy")


def random_findings(rng: np.random.Generator) -> Findings:
    """Findings without a page, for the tokenizer's text."""
    spec = sample_spec(rng)
    return Findings.of({**spec.__dict__, "axis": spec.axis})
