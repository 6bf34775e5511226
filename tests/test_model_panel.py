"""`Model.panel` on the embedded model: the same answers as `ask`, one prefill, deadlines."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

import pulse_edge
from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.errors import DeadlineError, ImageError, ParameterError
from pulse_edge.panels.panel import Panel, PanelQuestion
from pulse_edge.panels.panel_file import load_panel, shipped_panels
from pulse_edge.panels.result import Result

from support.carts.muse import muse_file
from support.carts.signals import PLANTED, eight, samples
from support.paths import DOCS

SCHEMA = json.loads((DOCS / "result.schema.json").read_text())
SHORT = Panel(
    "short",
    "Short",
    (
        PanelQuestion(
            "lvh",
            "Is there left ventricular hypertrophy?",
            ("no", "yes"),
            "plain",
            ("No left ventricular hypertrophy.", "Yes, left ventricular hypertrophy."),
            scored=True,
        ),
        PanelQuestion("rate", "What is the heart rate?"),
    ),
)


@pytest.fixture(scope="module")
def model() -> pulse_edge.Model:
    return pulse_edge.load(threads=1)


def checked(result: Result) -> Result:
    jsonschema.validate(json.loads(json.dumps(result.to_dict(), allow_nan=False)), SCHEMA)
    return result


@pytest.mark.parametrize("name", shipped_panels())
def test_a_shipped_panel_gives_the_answers_of_ask(model: pulse_edge.Model, name: str) -> None:
    result = checked(model.panel(SAMPLE_PAGE, name))
    panel = load_panel(name)
    assert [each.id for each in result.questions] == [each.id for each in panel.questions]
    assert result.panel_sha256 == panel.sha256
    for question, each in zip(panel.questions, result.questions, strict=True):
        answer = model.ask(SAMPLE_PAGE, question.prompt, max_new_tokens=question.max_new_tokens)
        assert (each.text, each.finish_reason) == (answer.text, answer.finish_reason)
        if question.scored:
            scores = model.score(SAMPLE_PAGE, question.prompt, question.texts)
            assert each.scores is not None
            assert [each.scores[option].logprob for option in question.options] == pytest.approx(
                [score.logprob for score in scores], abs=1e-3
            )
        for start, stop in each.spans:
            assert each.text[start:stop]


def test_the_sample_page_is_read_rightly(model: pulse_edge.Model) -> None:
    """It was simulated as sinus rhythm at 74 beats a minute with right bundle branch block."""
    result = model.panel(SAMPLE_PAGE)
    assert result.panel == "pulse-nano"
    answers = {question.id: question.answer for question in result.questions}
    assert answers == {
        "overall": "abnormal",
        "rhythm": "sinus rhythm",
        "rate": None,
        "conduction": "right bundle branch block",
        "ectopy": "no ectopic beats",
        "st-segment": "no ST change",
        "hypertrophy": "no left ventricular hypertrophy",
        "report": None,
    }
    statuses = {each.finding: each.status for each in result.statements}
    assert statuses["right bundle branch block"] == "stated"
    assert statuses["ectopic beats"] == "negated"
    assert statuses["left bundle branch block"] == "not stated"
    rates = [each.value for each in result.measurements if each.name == "heart rate"]
    assert all(rate is not None and abs(rate - 74) <= 5 for rate in rates)
    for question in result.questions:
        scores = {option: each.logprob for option, each in (question.scores or {}).items()}
        assert question.answer in (None, max(scores, key=scores.__getitem__, default=None))


def test_the_page_is_prefilled_once(model: pulse_edge.Model) -> None:
    model.panel(SAMPLE_PAGE, SHORT)
    answer = model.ask(SAMPLE_PAGE, "What is the rhythm?", max_new_tokens=1)
    assert answer.usage.cached_tokens > answer.usage.image_tokens
    assert answer.timings.vision == 0


def test_a_page_that_is_looked_at_is_taken(model: pulse_edge.Model) -> None:
    look = model.look(SAMPLE_PAGE)
    assert checked(model.panel(look, SHORT)).questions[0].answer == "no"


def test_an_image_without_an_ecg_is_refused_by_the_model(model: pulse_edge.Model) -> None:
    result = checked(model.panel(Image.new("RGB", (1100, 850), "white")))
    assert all(question.refused and question.answer is None for question in result.questions)
    assert {each.status for each in result.statements} <= {"not stated"}


def test_what_the_cart_measured_and_said_is_told_apart(
    model: pulse_edge.Model, tmp_path: Path
) -> None:
    pytest.importorskip("ecgdatakit", reason="carts' files need pulse-edge[formats]")
    path = tmp_path / "muse.xml"
    said = ("Sinus rhythm", "Left axis deviation", f"Confirmed by {PLANTED[0]}")
    path.write_bytes(muse_file(eight(samples()), statements=said))
    result = checked(model.panel(path, given={"PR interval": 150}, cart={"heart rate": 80}))
    assert result.cart_statements == ("Sinus rhythm", "Left axis deviation")
    stated = {each.finding for each in result.statements if each.source == "cart"}
    assert {"sinus rhythm", "left axis deviation"} <= stated
    text = "\n".join(result.cart_statements)
    spans = [each.spans[0] for each in result.statements if each.source == "cart"]
    assert all(text[start:stop] for start, stop in spans)
    measured = {(each.name, each.value) for each in result.measurements if each.source == "cart"}
    assert {("heart rate", 80), ("PR interval", 148), ("QTc interval", 410)} <= measured
    assert ("heart rate", 75) not in measured, "the caller's word is the newer one"
    assert result.provenance["image"]["recording"]["format"] == "GE MUSE XML"
    written = json.dumps(result.to_dict())
    assert not [name for name in PLANTED if name in written]


def test_a_file_object_is_read_once(model: pulse_edge.Model) -> None:
    with SAMPLE_PAGE.open("rb") as file:
        assert len(checked(model.panel(file, SHORT)).questions) == 2


@pytest.mark.parametrize("deadline_s", [0.001, 0.05, 0.15, 0.4, 60])
def test_deadlines_keep_the_result_whole(model: pulse_edge.Model, deadline_s: float) -> None:
    result = checked(model.panel(SAMPLE_PAGE, deadline_s=deadline_s, best_effort=True))
    done = {question.id for question in result.questions}
    skipped = set(result.timing.skipped)
    asked = {question.id for question in load_panel("pulse-nano").questions}
    assert done | {name for name in skipped if "." not in name} == asked
    assert not done & skipped
    for question in result.questions:
        assert not question.options or question.parsed
    if deadline_s == 60:
        assert result.timing.deadline_met


def test_a_deadline_that_cannot_be_met_is_refused(model: pulse_edge.Model) -> None:
    look = model.look(SAMPLE_PAGE)
    model.forget()
    first = model.panel(look, SHORT).questions[0]  # measures rates, its page is decoded
    model.forget()
    with pytest.raises(DeadlineError):
        model.panel(look, SHORT, deadline_s=first.seconds / 10)


def test_mistakes_are_refused_before_the_page_is_read(
    model: pulse_edge.Model, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.png"
    for options in (
        {"panel": "none"},
        {"panel": SHORT, "deadline_s": 0},
        {"panel": SHORT, "deadline_s": -1.0},
        {"panel": SHORT, "priority": "high"},
        {"panel": SHORT, "given": {"pulse": 70}},
    ):
        with pytest.raises(ParameterError):
            model.panel(missing, **options)
    with pytest.raises(ImageError):
        model.panel(missing, SHORT)
