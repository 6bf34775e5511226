"""Training wordings: every intent has many, and none is one of those that measure."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pulse_edge.simulation.intents import CHECKS, FOLLOW_UPS, MEASURED, TOPIC_INTENTS, reply
from pulse_edge.simulation.wording_table import CHECKS_ASKED, FIRST, LATER, THINGS_ASKED
from pulse_nano.lessons import random_findings, training_talks
from pulse_nano.wordings import grammar, sample_follow_up, sample_intent, wording

FIRST_INTENTS = (*TOPIC_INTENTS, *MEASURED, *CHECKS, "report", "beyond", "greeting")


def plain(text: str) -> str:
    """Letters and digits, by which two wordings are the same."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def held_out() -> set[str]:
    first = {plain(text) for texts in FIRST.values() for text in texts}
    later = {plain(text) for texts in LATER.values() for text in texts}
    checks = {
        plain(form.replace("{a}", thing))
        for form in CHECKS_ASKED
        for things in THINGS_ASKED.values()
        for thing in things
    }
    return first | later | checks


def cores_of(intent: str) -> set[str]:
    """Every wording that the grammar has for an intent, without an opening and a place."""
    texts = grammar()
    forms = list(texts["whole"].get(intent, ()))
    for noun in texts["nouns"].get(intent, ()):
        forms += [f.replace("{x}", noun) for key in ("ask", "ellipses") for f in texts[key]]
    for thing in texts["things"].get(intent.removeprefix("is "), ()):
        with_article, bare = thing.split(" | ")
        forms += [f.replace("{a}", with_article).replace("{x}", bare) for f in texts["check"]]
    return {plain(form.replace("{w}", "")) for form in forms}


def possible_cores(text: str) -> set[str]:
    """A text as it is, and without what may be an opening, a place, or both."""
    words = f"{plain(text)} "
    openings = [f"{plain(opening)} " for opening in grammar()["openings"]]
    starts = [words, *(words[len(o) :] for o in openings if words.startswith(o))]
    places = [f" {plain(place)} " for place in grammar()["where"]]
    inner = [start.replace(place, " ", 1) for start in starts for place in places if place in start]
    return {each.strip() for each in (*starts, *inner)}


def test_openings_and_places_are_found() -> None:
    core = "is the axis normal"
    for text in ("Is the axis normal?", "Please: is the axis normal in this ECG?"):
        assert core in possible_cores(text)
    assert "is there a change" in possible_cores("Is there a change here?")


@pytest.mark.parametrize("intent", [*FIRST_INTENTS, *FOLLOW_UPS])
def test_an_intent_has_many_wordings_and_none_that_measures(intent: str) -> None:
    made = cores_of(intent)
    assert len(made) > 100
    measuring = {core for text in held_out() for core in possible_cores(text)}
    assert not made & measuring
    rng = np.random.default_rng(1)
    drawn = [wording(intent, rng, later) for later in (False, True) for _ in range(20)]
    assert [text for text in drawn if not possible_cores(text) & made] == []
    assert len(set(drawn)) > 15


def test_the_same_words_mean_one_thing_in_a_first_turn() -> None:
    texts = grammar()["whole"]
    owners: dict[str, set[str]] = {}
    for intent in FIRST_INTENTS:
        for form in texts.get(intent, ()):
            owners.setdefault(plain(form.replace("{w}", "")), set()).add(intent)
    assert {form: names for form, names in owners.items() if len(names) > 1} == {}


def test_lessons_ask_for_what_is_there_and_what_is_not() -> None:
    rng = np.random.default_rng(3)
    verdicts = []
    for _ in range(100):
        for talk in training_talks(random_findings(rng), rng):
            if talk[0].key in CHECKS:
                verdicts.append(talk[0].answer.startswith("Yes"))
    assert 0.35 < np.mean(verdicts) < 0.75


def test_every_turn_of_a_lesson_has_the_right_answer() -> None:
    rng = np.random.default_rng(4)
    several = 0
    for _ in range(40):
        findings = random_findings(rng)
        for talk in training_talks(findings, rng):
            several += len(talk) > 1
            for item in talk:
                if item.task == "free" and item.key not in FOLLOW_UPS:
                    assert item.answer == reply(item.key, findings)
                assert "{" not in item.question
    assert several > 60


def test_a_follow_up_fits_the_turn_before() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        before = sample_intent(rng)
        after = sample_follow_up(before, rng)
        assert after != "where" or before == "st" or "ST" in before
        assert after != "which" or before not in ("report", "beyond", "greeting", "normal")
