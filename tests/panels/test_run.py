"""Running a panel: order, deadlines, scores, what is skipped, and the result's schema."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import jsonschema
import pytest

from pulse_edge.answer import Answer
from pulse_edge.decode.result import FinishReason
from pulse_edge.decode.scoring import OptionScore
from pulse_edge.errors import DeadlineError, EngineError, ParameterError, QueueFullError
from pulse_edge.panels.measurements import QUANTITIES, Source
from pulse_edge.panels.panel import Panel, PanelQuestion
from pulse_edge.panels.result import RESULT_SCHEMA, SKIP_REASONS, Result
from pulse_edge.panels.run import run_panel
from pulse_edge.panels.statements import STATUSES

from support.answers import answer
from support.paths import DOCS

SCHEMA = json.loads((DOCS / "result.schema.json").read_text())
RHYTHM = PanelQuestion("rhythm", "Rhythm?", ("sinus rhythm", "AF"), scored=True)
BLOCK = PanelQuestion("block", "Block?", ("no block", "AV block"), scored=True)
OPEN = PanelQuestion("sure", "Sure?", ("yes", "no"))
REPORT = PanelQuestion("report", "Report.")
PANEL = Panel("mine", "Mine", (RHYTHM, BLOCK, OPEN, REPORT), refusals=("No ECG.",))
TEXTS = {
    "Rhythm?": "AF.",
    "Block?": "no block",
    "Sure?": "perhaps",
    "Report.": "AF at 80 bpm. LVH.",
}


@dataclass
class Page:
    """A model that answers in one second and scores in half of one, by a clock of its own."""

    texts: dict[str, str] = field(default_factory=lambda: dict(TEXTS))
    reasons: dict[str, FinishReason] = field(default_factory=dict)
    late: Sequence[str] = ()  # questions that are predicted to be late
    full: str = ""  # the call that finds the queue full
    now: float = 100.0
    calls: list[str] = field(default_factory=list)
    allowed: list[float | None] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def ask(self, question: str, *, max_new_tokens: int, deadline_s: float | None) -> Answer:
        key = question.split("\n")[0]
        self.calls.append(key)
        self.allowed.append(deadline_s)
        assert max_new_tokens == 64
        if key in self.late:
            raise DeadlineError("too late", 9.0, 1.0)
        if key == self.full:
            raise QueueFullError("3 requests wait; ask again later", 2.0)
        self.now += 1
        base = answer()
        timings = replace(base.timings, queued=0.25)
        reason = self.reasons.get(key, "eos")
        return replace(base, text=self.texts[key], finish_reason=reason, timings=timings)

    def score(
        self, question: str, options: Iterable[str], *, deadline_s: float | None
    ) -> tuple[OptionScore, ...]:
        key = question.split("\n")[0]
        self.calls.append(f"{key} scores")
        if f"{key} scores" in self.late:
            raise DeadlineError("too late", 9.0, 1.0)
        if f"{key} scores" == self.full:
            raise QueueFullError("3 requests wait; ask again later", 2.0)
        self.now += 0.5
        return tuple(
            OptionScore(option, -0.5 - 2 * place, -0.4 - 2 * place, 2)
            for place, option in enumerate(options)
        )

    def run(self, panel: Panel = PANEL, **options: object) -> Result:
        result = run_panel(panel, self.ask, self.score, clock=self.clock, **options)  # type: ignore[arg-type]
        jsonschema.validate(json.loads(json.dumps(result.to_dict())), SCHEMA)
        return result


def test_every_question_is_answered_and_scored() -> None:
    page = Page()
    result = page.run()
    assert page.calls == [
        *("Rhythm?", "Rhythm? scores", "Block?", "Block? scores", "Sure?", "Report."),
    ]
    rhythm, block, sure, report = result.questions
    assert (rhythm.answer, rhythm.parsed, rhythm.spans, rhythm.text) == (
        "AF",
        True,
        ((0, 2),),
        "AF.",
    )
    assert rhythm.prompt.startswith("Rhythm?\nOptions: sinus rhythm, AF\nOnly answer")
    assert rhythm.scores is not None
    assert [rhythm.scores[option].logprob for option in ("sinus rhythm", "AF")] == [-0.5, -2.5]
    assert rhythm.margin == 2.0
    assert rhythm.seconds == 1.5
    assert block.answer == "no block"
    assert (sure.answer, sure.parsed, sure.scores, sure.spans) == (None, False, None, ())
    assert (report.answer, report.options) == (None, ())
    assert result.timing.queued_s == 1.0
    assert (result.timing.total_s, result.timing.deadline_met) == (5.0, None)
    assert result.panel_sha256 == PANEL.sha256


def test_free_text_becomes_statements_and_measurements() -> None:
    result = Page().run(given={"heart rate": 82}, cart={"QRS duration": 90})
    stated = {each.finding for each in result.statements if each.status == "stated"}
    assert stated == {
        *("atrial fibrillation", "left ventricular hypertrophy", "ventricular hypertrophy"),
    }
    assert {each.source for each in result.statements} == {"report", None}
    assert [(each.name, each.value, each.source) for each in result.measurements] == [
        ("QRS duration", 90, "cart"),
        ("heart rate", 82, "given"),
        ("heart rate", 80, "model"),
    ]
    text = result.questions[-1].text
    spans = [span for each in result.statements for span in each.spans]
    spans += [span for each in result.measurements for span in each.spans]
    assert {text[start:stop] for start, stop in spans} == {"AF", "LVH", "at 80 bpm"}


def test_notes_of_the_page_are_checks_and_the_request_is_left_out_of_provenance() -> None:
    result = Page().run()
    assert [(check.check, check.message) for check in result.checks] == [
        ("page", "/home/jane/page.png")
    ]
    assert not {"prompt", "parameters"} & result.provenance.keys()


def test_under_a_deadline_scores_come_last() -> None:
    page = Page()
    result = page.run(deadline_s=60)
    assert page.calls == [
        *("Rhythm?", "Block?", "Sure?", "Report.", "Rhythm? scores", "Block? scores"),
    ]
    assert page.allowed == [60, 59, 58, 57]
    assert (result.timing.deadline_met, result.timing.skipped) == (True, ())


@pytest.mark.parametrize(
    ("deadline_s", "answered", "skipped"),
    [
        (0.5, 1, ["block", "sure", "report", "rhythm.scores"]),
        (1.5, 2, ["sure", "report", "rhythm.scores", "block.scores"]),
        (2.0, 2, ["sure", "report", "rhythm.scores", "block.scores"]),
        (3.5, 4, ["rhythm.scores", "block.scores"]),
        (4.2, 4, ["block.scores"]),
        (5.0, 4, []),
    ],
)
def test_what_is_not_reached_is_skipped(
    deadline_s: float, answered: int, skipped: list[str]
) -> None:
    result = Page().run(deadline_s=deadline_s)
    assert len(result.questions) == answered
    assert list(result.timing.skipped) == skipped
    assert result.timing.deadline_met is (not skipped)
    assert {question.id for question in result.questions}.isdisjoint(skipped)


def test_a_first_question_that_would_be_late_refuses_the_panel() -> None:
    with pytest.raises(DeadlineError, match="too late"):
        Page(late=["Rhythm?"]).run(deadline_s=5)


def test_later_questions_that_would_be_late_are_skipped() -> None:
    result = Page(late=["Block?", "Rhythm? scores"]).run(deadline_s=50)
    assert [question.id for question in result.questions] == ["rhythm", "sure", "report"]
    assert result.timing.skipped == ("block", "rhythm.scores")
    assert result.questions[0].scores is None


@pytest.mark.parametrize("text", ["AF", "sinus", "", "sinus rhythm"])
def test_half_an_option_is_none(text: str) -> None:
    page = Page(texts=TEXTS | {"Block?": text}, reasons={"Block?": "deadline"})
    result = page.run(deadline_s=50)
    assert [question.id for question in result.questions] == ["rhythm", "sure", "report"]
    assert result.timing.skipped == ("block",)


@pytest.mark.parametrize("reason", ["length", "context", "cancelled"])
def test_an_answer_that_was_cut_off_is_no_option(reason: FinishReason) -> None:
    result = Page(reasons={"Rhythm?": reason, "Block?": reason}).run()
    assert [question.answer for question in result.questions] == [None] * 4
    assert not result.questions[0].refused


def test_a_report_that_was_cut_off_counts_up_to_its_last_sentence() -> None:
    page = Page(
        texts=TEXTS | {"Report.": "Sinus rhythm. Atrial fibrillation"},
        reasons={"Report.": "deadline"},
    )
    result = page.run(deadline_s=50)
    assert result.questions[-1].text == "Sinus rhythm. Atrial fibrillation"
    assert {each.finding for each in result.statements if each.spans} == {"sinus rhythm"}
    assert result.timing.deadline_met is False
    assert result.timing.skipped == ()


def test_a_refusal_is_no_option_and_not_scored() -> None:
    page = Page(texts=dict.fromkeys(TEXTS, "No ECG."))
    result = page.run()
    assert all(question.refused and question.answer is None for question in result.questions)
    assert not [call for call in page.calls if "scores" in call]
    assert not [each for each in result.statements if each.spans]


def test_a_panel_without_free_text_has_no_statements() -> None:
    assert Page().run(Panel("mine", "Mine", (RHYTHM,))).statements == ()


def test_without_a_scorer_nothing_is_scored() -> None:
    page = Page()
    result = run_panel(PANEL, page.ask, clock=page.clock)
    assert all(question.scores is None for question in result.questions)


def test_a_deadline_without_end_is_none() -> None:
    result = Page().run(deadline_s=math.inf)
    assert (result.timing.deadline_s, result.timing.deadline_met) == (None, None)


def test_wrong_measurements_are_refused_before_anything_is_asked() -> None:
    page = Page()
    with pytest.raises(ParameterError):
        page.run(given={"heart rate": 0})
    assert page.calls == []


FULL = ("Rhythm?", "Rhythm? scores", "Block?", "Block? scores", "Sure?", "Report.")


@pytest.mark.parametrize("deadline_s", [None, 60.0])
@pytest.mark.parametrize("full", FULL[1:])
def test_a_queue_that_is_full_midway_leaves_the_answers_so_far(
    full: str, deadline_s: float | None
) -> None:
    page = Page(full=full)
    result = page.run(deadline_s=deadline_s)
    order = FULL if deadline_s is None else sorted(FULL, key=lambda call: "scores" in call)
    before = order[: order.index(full)]
    names = {"Rhythm?": "rhythm", "Block?": "block", "Sure?": "sure", "Report.": "report"}
    answered = [names[call] for call in before if call in names]
    assert [question.id for question in result.questions] == answered
    assert page.calls == list(order[: order.index(full) + 1]), "nothing more is asked"
    scored = {q.id for q in result.questions if q.scores is not None}
    assert scored == {names[call.split()[0]] for call in before if call.endswith("scores")}
    rest = set(names.values()) - set(answered)
    rest |= {f"{name}.scores" for name in ("rhythm", "block") if name in answered} - {
        f"{name}.scores" for name in scored
    }
    assert set(result.timing.skipped) == rest
    assert result.timing.skip_reasons == dict.fromkeys(result.timing.skipped, "queue_full")
    assert result.timing.deadline_met is (None if deadline_s is None else False)
    assert result.provenance


def test_a_queue_that_is_full_at_once_refuses_the_panel() -> None:
    with pytest.raises(QueueFullError, match="ask again later"):
        Page(full="Rhythm?").run()


def test_every_skipped_id_has_its_reason() -> None:
    result = Page(late=["Block?"]).run(deadline_s=1.5)
    assert result.timing.skipped == ("block", "report", "rhythm.scores")
    assert result.timing.skip_reasons == dict.fromkeys(result.timing.skipped, "deadline")


def test_other_errors_pass_through() -> None:
    def fail(question: str, *, max_new_tokens: int, deadline_s: float | None) -> Answer:
        raise EngineError("no memory")

    with pytest.raises(EngineError, match="no memory"):
        run_panel(PANEL, fail)


def test_the_schema_lists_what_the_code_has() -> None:
    measurement = SCHEMA["properties"]["measurements"]["items"]["properties"]
    assert measurement["name"]["enum"] == list(QUANTITIES)
    assert set(measurement["unit"]["enum"]) == {each.unit for each in QUANTITIES.values()}
    assert measurement["source"]["enum"] == list(get_args(Source))
    statement = SCHEMA["properties"]["statements"]["items"]["properties"]
    assert statement["status"]["enum"] == list(STATUSES)
    assert set(SCHEMA["$defs"]["question"]["properties"]["finish_reason"]["enum"]) == set(
        get_args(FinishReason)
    )
    reasons = SCHEMA["properties"]["timing"]["properties"]["skip_reasons"]
    assert reasons["additionalProperties"]["enum"] == list(SKIP_REASONS)
    assert SCHEMA["properties"]["schema"]["const"] == RESULT_SCHEMA
