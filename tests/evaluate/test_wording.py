"""The measure of free wording: a perfect model, a mute one, one that answers with letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

import pulse_edge
from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.registry import make_task
from pulse_edge.evaluate.task import Ask
from pulse_edge.evaluate.wording import (
    ALL,
    KINDS,
    LETTERS,
    FreeWording,
    WordingScores,
    wording_summary,
)

PAGES = 6


class Numbering:
    """Answers with a number, and notes the turns that it was given."""

    def __init__(self) -> None:
        self.histories: list[tuple[tuple[str, str], ...]] = []

    def __call__(self, image: Any, question: str, turns: Sequence[tuple[str, str]] = ()) -> str:
        self.histories.append(tuple(turns))
        return f"answer {len(self.histories)}"


def evaluate(model: Ask, cases: Iterable[int] = range(PAGES)) -> WordingScores:
    task = FreeWording(PAGES)
    (scores,) = task.score(task.ask(case, [model]) for case in cases)
    return scores


def perfect() -> WordingScores:
    """The replies of a mute model, with the expected answers put in."""
    task = FreeWording(PAGES)
    replies = [task.ask(case, [Numbering()]) for case in range(PAGES)]
    right = [
        [[said._replace(text=said.turn.right[0]) for said in model] for model in models]
        for models in replies
    ]
    (scores,) = task.score(right)
    return scores


def test_a_perfect_model_scores_one() -> None:
    figures = wording_summary(perfect(), draws=5)
    assert figures[ALL]["value"] == 1
    assert figures[LETTERS]["value"] == 0
    assert all(figures[kind]["turns"] > 0 for kind in KINDS)
    assert figures[ALL]["turns"] == PAGES * (10 + 2 * 3)


def test_a_mute_model_and_one_of_letters_score_nothing() -> None:
    mute = wording_summary(evaluate(lambda image, question, turns=(): ""), draws=5)
    letters = wording_summary(evaluate(lambda image, question, turns=(): "A. sinus"), draws=5)
    assert mute[ALL]["value"] == letters[ALL]["value"] == 0
    assert mute[LETTERS]["value"] == 0
    assert letters[LETTERS]["value"] == 1


def test_later_turns_follow_the_models_own_answers() -> None:
    model = Numbering()
    FreeWording(1).ask(0, [model])
    lengths = [len(history) for history in model.histories]
    assert lengths == [0] * 10 + [0, 1, 2] * 2
    assert model.histories[12][0][1] == "answer 11"
    assert model.histories[12][1][1] == "answer 12"


def test_the_table_has_a_row_a_kind() -> None:
    task = make_task("wording", PAGES)
    report = task.report(["a", "b"], [perfect(), WordingScores()])
    table = task.table(report)
    assert "| | a | b |" in table
    assert "| all turns | 1.000 (1.000-1.000) | nan (nan-nan) |" in table
    assert table.count("\n") == 1 + len(KINDS) + 2


def test_the_embedded_model_understands_free_words() -> None:
    """0.9 of all turns on many pages (pulse_nano/MODEL_CARD.md), and never a letter; here on four
    pages, with room for chance."""
    with pulse_edge.load(threads=1) as model:
        if model.bundle.manifest.turns != "several":
            pytest.skip("the embedded model was trained on first turns only")

        def ask(image: Any, question: str, turns: Sequence[tuple[str, str]] = ()) -> str:
            return str(model.chat(image, turns).ask(question, max_new_tokens=120).text)

        scores = evaluate(ask, range(100, 104))
    figures = wording_summary(scores, draws=5)
    assert figures[ALL]["value"] >= 0.85
    assert figures[LETTERS]["value"] == 0


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(ParameterError, match="task 'free' is not one of simulated, wording"):
        make_task("free", 3)
