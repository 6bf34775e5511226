"""A panel whose prompts state values of the operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pulse_edge.answer import Answer
from pulse_edge.decode.scoring import OptionScore
from pulse_edge.errors import ParameterError
from pulse_edge.panels.panel import Panel, PanelQuestion
from pulse_edge.panels.result import Result
from pulse_edge.panels.run import run_panel

from support.answers import answer

PANEL = Panel(
    "mine",
    "Mine",
    (
        PanelQuestion("rhythm", "Rhythm?", ("sinus rhythm", "AF"), scored=True),
        PanelQuestion("report", "Report."),
    ),
)
GIVEN = "Given by the operator, not read from the ECG: "


def run(text: str, **options: Any) -> tuple[Result, list[str]]:
    """The result of answers of this text, and the prompts."""
    prompts: list[str] = []

    def ask(question: str, *, max_new_tokens: int, deadline_s: float | None) -> Answer:
        prompts.append(question)
        return replace(answer(), text=text)

    def score(
        question: str, options: object, *, deadline_s: float | None
    ) -> tuple[OptionScore, ...]:
        prompts.append(question)
        return (OptionScore("sinus rhythm", -1.0, -1.0, 2), OptionScore("AF", -2.0, -2.0, 2))

    return run_panel(PANEL, ask, score, **options), prompts


def test_every_prompt_states_them_and_every_question_shows_its_prompt() -> None:
    result, prompts = run("AF", known={"heart rate": 72.0})
    assert len(prompts) == 3
    assert all(prompt.startswith(f"{GIVEN}heart rate 72 /min.\n") for prompt in prompts)
    assert [question.prompt for question in result.questions] == [prompts[0], prompts[2]]
    assert result.panel_sha256 == PANEL.sha256


@pytest.mark.parametrize("stated", [72, 90])
def test_they_are_given_and_never_the_models(stated: int) -> None:
    text = f"AF at {stated} bpm. QRS duration 90 ms. PR interval 160 ms."
    result, _ = run(text, known={"heart rate": 72.0, "PR interval": 200.0})
    assert [(each.name, each.value, each.source) for each in result.measurements] == [
        ("heart rate", 72.0, "given"),
        ("PR interval", 200.0, "given"),
        ("QRS duration", 90.0, "model"),
    ]


def test_what_is_both_known_and_given_is_refused() -> None:
    with pytest.raises(ParameterError, match="heart rate is both known and given; give it once"):
        run("AF", known={"heart rate": 72.0}, given={"heart rate": 72.0})
