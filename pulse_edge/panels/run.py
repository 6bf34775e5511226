"""Runs a panel: one question after the other about the page that is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from pulse_edge.answer import Answer
from pulse_edge.decode.scoring import OptionScore
from pulse_edge.errors import DeadlineError, ParameterError, QueueFullError
from pulse_edge.known import with_known
from pulse_edge.page.check import PageCheck
from pulse_edge.panels.measurements import (
    Measurement,
    cart_measurements,
    known_measurements,
    report_measurements,
)
from pulse_edge.panels.panel import Panel, PanelQuestion
from pulse_edge.panels.reading import is_refusal, read_option
from pulse_edge.panels.result import (
    InputCheck,
    OptionLikelihood,
    PanelTiming,
    QuestionResult,
    Result,
    SkipReason,
)
from pulse_edge.panels.statements import Statement, parse_statements, unstated, whole_sentences

ENDED = ("eos", "stop")  # an answer that ended otherwise was cut off
CART = "cart"  # source of statements that are not the model's
CART_BREAK = "\n"  # between the cart's statements, where spans are counted in all of them
REQUEST_FIELDS = ("prompt", "parameters")  # of provenance: they differ by question


class AskPage(Protocol):
    """Asks a question about the page. Raises `DeadlineError` if it is predicted to be late."""

    def __call__(
        self, question: str, *, max_new_tokens: int, deadline_s: float | None
    ) -> Answer: ...


class ScorePage(Protocol):
    """Scores options as answers to a question, in their order. Raises `DeadlineError`."""

    def __call__(
        self, question: str, options: Sequence[str], *, deadline_s: float | None
    ) -> Sequence[OptionScore]: ...


def run_panel(
    panel: Panel,
    ask: AskPage,
    score: ScorePage | None = None,
    *,
    deadline_s: float | None = None,
    given: Mapping[str, float] | None = None,
    cart: Mapping[str, float] | None = None,
    known: Mapping[str, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Ask the questions of a panel.

    Under a deadline all questions come before all scores, and what is not reached is skipped.
    Without one, a question is scored right after its answer, while the cache holds it. If the queue
    is full in the midst of the panel, the answers so far are the result, and the rest is skipped.

    Args:
        panel: the questions.
        ask: asks one about the page.
        score: scores options; None: nothing is scored.
        deadline_s: seconds for all of it.
        given: measurements of the caller, by name. The model does not see them.
        cart: measurements of the cart, by name.
        known: measurements of the caller that the prompts state, by the names of `QUANTITIES`.
        clock: seconds since any moment.

    Raises:
        DeadlineError: the first question is predicted to be late.
        ParameterError: a measurement is wrong.
        QueueFullError: before the first answer.
    """
    if deadline_s == math.inf:
        deadline_s = None  # JSON has no infinity
    twice = [name for name in known or {} if name in (given or {})]
    if twice:
        raise ParameterError(f"{twice[0]} is both known and given; give it once")
    beforehand = (
        *known_measurements(cart or {}, "cart"),
        *known_measurements({**(given or {}), **(known or {})}, "given"),
    )
    run = _PanelRun(panel, ask, score, deadline_s, clock, dict(known or {}))
    for step, question in _steps(panel, deadline_s is not None):
        step(run, question)
    return run.result(beforehand)


@dataclass
class _PanelRun:
    """A panel that is being asked."""

    panel: Panel
    ask: AskPage
    score: ScorePage | None
    deadline_s: float | None
    clock: Callable[[], float]
    known: dict[str, float]
    results: dict[str, QuestionResult] = field(default_factory=dict)
    skipped: dict[str, SkipReason] = field(default_factory=dict)
    queued: float = 0.0
    provenance: dict[str, Any] | None = None
    checks: tuple[PageCheck, ...] = ()

    def __post_init__(self) -> None:
        self.begun = self.clock()

    def remaining(self) -> float | None:
        """Seconds that are left; None if there is no deadline."""
        if self.deadline_s is None:
            return None
        return self.deadline_s - (self.clock() - self.begun)

    def allowance(self) -> float | None:
        """Seconds for the next request, over 0."""
        remaining = self.remaining()
        return None if remaining is None else max(remaining, 1e-6)

    def late(self) -> bool:
        """Whether the deadline has passed. The first question is asked in any case."""
        remaining = self.remaining()
        return remaining is not None and remaining <= 0 and self.provenance is not None

    def hopeless(self) -> SkipReason | None:
        """Why nothing more is asked; None if it is."""
        if "queue_full" in self.skipped.values():
            return "queue_full"
        return "deadline" if self.late() else None

    def answer_question(self, question: PanelQuestion) -> None:
        """Ask a question, or skip it."""
        if reason := self.hopeless():
            self.skipped[question.id] = reason
            return
        start = self.clock()
        try:
            answer = self.ask(
                with_known(question.prompt, self.known),
                max_new_tokens=question.max_new_tokens,
                deadline_s=self.allowance(),
            )
        except (DeadlineError, QueueFullError) as error:
            if self.provenance is None:
                raise
            self.skipped[question.id] = _skip_reason(error)
            return
        self.provenance = self.provenance or answer.provenance
        self.checks = self.checks or answer.checks
        self.queued += answer.timings.queued
        if answer.finish_reason == "deadline" and question.options:  # half an option is none
            self.skipped[question.id] = "deadline"
            return
        seconds = self.clock() - start
        result = _question_result(question, answer, self.panel.refusals, seconds)
        prompt = with_known(question.prompt, self.known)
        self.results[question.id] = replace(result, prompt=prompt)

    def score_question(self, question: PanelQuestion) -> None:
        """Score the options of an answered question, or skip that."""
        if self.score is None or not question.scored or question.id not in self.results:
            return
        if self.results[question.id].refused:
            return
        if reason := self.hopeless():
            self.skipped[f"{question.id}.scores"] = reason
            return
        start = self.clock()
        try:
            prompt = with_known(question.prompt, self.known)
            scores = self.score(prompt, question.texts, deadline_s=self.allowance())
        except (DeadlineError, QueueFullError) as error:
            self.skipped[f"{question.id}.scores"] = _skip_reason(error)
            return
        result = self.results[question.id]
        seconds = result.seconds + self.clock() - start
        self.results[question.id] = _with_scores(replace(result, seconds=seconds), scores)

    def _read_measurements(self) -> Iterator[Measurement]:
        """What the texts state, but for values that the prompts gave away."""
        for each in _measurements(self.results.values()):
            if each.name not in self.known:
                yield each

    def result(self, known: tuple[Measurement, ...]) -> Result:
        """What came of it.

        Args:
            known: measurements that are not the model's.
        """
        total = self.clock() - self.begun
        met = None
        if self.deadline_s is not None:
            cut = any(each.finish_reason == "deadline" for each in self.results.values())
            met = total <= self.deadline_s and not self.skipped and not cut
        provenance = self.provenance or {}
        image = provenance.get("image") or {}
        recording = image.get("recording") or {}
        given = {each.name for each in known if each.source == "cart"}
        recorded = [
            each
            for each in cart_measurements(recording.get("measurements") or {})
            if each.name not in given
        ]
        said = tuple(recording.get("statements") or ())
        return Result(
            self.panel.name,
            self.panel.sha256,
            tuple(self.results.values()),
            (*_statements(self.results.values()), *parse_statements(CART_BREAK.join(said), CART)),
            (*recorded, *known, *self._read_measurements()),
            (
                *(InputCheck("page", note) for note in image.get("notes", ())),
                *(InputCheck(**asdict(check)) for check in self.checks),
            ),
            PanelTiming(
                self.deadline_s, self.queued, total, met, tuple(self.skipped), dict(self.skipped)
            ),
            {name: value for name, value in provenance.items() if name not in REQUEST_FIELDS},
            cart_statements=said,
        )


def _skip_reason(error: DeadlineError | QueueFullError) -> SkipReason:
    return "queue_full" if isinstance(error, QueueFullError) else "deadline"


_Step = Callable[[_PanelRun, PanelQuestion], None]


def _steps(panel: Panel, hurried: bool) -> Iterator[tuple[_Step, PanelQuestion]]:
    if hurried:
        yield from ((_PanelRun.answer_question, question) for question in panel.questions)
        yield from ((_PanelRun.score_question, question) for question in panel.questions)
        return
    for question in panel.questions:
        yield _PanelRun.answer_question, question
        yield _PanelRun.score_question, question


def _question_result(
    question: PanelQuestion, answer: Answer, refusals: tuple[str, ...], seconds: float
) -> QuestionResult:
    whole = answer.finish_reason in ENDED
    choice = read_option(answer.text, question) if whole and question.options else None
    return QuestionResult(
        id=question.id,
        prompt=question.prompt,
        options=question.options,
        text=answer.text,
        answer=choice.option if choice else None,
        parsed=choice is not None,
        refused=choice is None and whole and is_refusal(answer.text, refusals),
        spans=(choice.span,) if choice else (),
        scores=None,
        margin=None,
        finish_reason=answer.finish_reason,
        seconds=seconds,
    )


def _with_scores(result: QuestionResult, scores: Sequence[OptionScore]) -> QuestionResult:
    likelihoods = {
        option: OptionLikelihood(float(score.logprob), int(score.tokens))
        for option, score in zip(result.options, scores, strict=True)
    }
    first, second, *_ = sorted((each.logprob for each in likelihoods.values()), reverse=True)
    return replace(result, scores=likelihoods, margin=first - second)


def _free_texts(results: Iterable[QuestionResult]) -> Iterator[tuple[str, str]]:
    """Id and text of what can be parsed: of a text that was cut off, its whole sentences."""
    for result in results:
        if not result.options and not result.refused:
            whole = result.finish_reason in ENDED
            yield result.id, result.text if whole else whole_sentences(result.text)


def _statements(results: Iterable[QuestionResult]) -> tuple[Statement, ...]:
    """What the free texts state, and the findings that none of them mentions; () without any."""
    texts = list(_free_texts(results))
    stated = [each for id_, text in texts for each in parse_statements(text, id_)]
    return (*stated, *unstated(stated)) if texts else ()


def _measurements(results: Iterable[QuestionResult]) -> tuple[Measurement, ...]:
    return tuple(
        each for id_, text in _free_texts(results) for each in report_measurements(text, id_)
    )
