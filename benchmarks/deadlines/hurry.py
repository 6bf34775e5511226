"""Runs requests with deadlines, one or several at a time."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pulse_edge
from benchmarks.deadlines.cases import (
    FAR,
    HURRIED_QUESTIONS,
    KNOWN_PAGES,
    SIGHTS,
    HurriedCase,
    NumberedPages,
    Sight,
)
from benchmarks.deadlines.probe import CallProbe
from pulse_edge.errors import DeadlineError
from pulse_edge.look import Look

REFUSED = "refused"  # as an outcome; the others are finish reasons
Kind = tuple[Sight, str]  # how the page comes, and the question


@dataclass(frozen=True)
class HurriedOutcome:
    """What became of a request.

    Attributes:
        case: the request.
        deadline_s: that it carried.
        ended: how.
        seconds: from its submission to the caller who has its answer or refusal.
        predicted_s: the whole, at its submission; None if nothing was known.
        decision_s: of a refusal: from the page, ready, to the refusal in the caller's hands.
        stage: that the deadline came in; None if it did not.
    """

    case: HurriedCase
    deadline_s: float
    ended: str
    seconds: float
    predicted_s: float | None = None
    decision_s: float | None = None
    stage: str | None = None


class HurriedRun:
    """A model that is asked with deadlines.

    Args:
        model: that nobody else asks.
        pages: to ask about.
    """

    def __init__(self, model: pulse_edge.Model, pages: NumberedPages) -> None:
        self.model = model
        self.probe = CallProbe(model)
        self.alone: dict[Kind, float] = {}
        self.versions: dict[str, Any] = {}
        self._pages = pages
        self._looks = [model.look(pages.page("looked", n)) for n in range(KNOWN_PAGES)]
        for look in self._looks:
            look.wait()

    def measure_alone(self, repetitions: int) -> None:
        """Measure what each kind of request takes, one after the other.

        Args:
            repetitions: of each kind, after as many that are not measured.
        """
        for question in HURRIED_QUESTIONS:
            for sight in SIGHTS:
                taken = [
                    self.ask(HurriedCase(sight, question, -1 - number, math.inf)).seconds
                    for number in range(2 * repetitions)
                ]
                self.alone[sight, question] = statistics.median(taken[repetitions:])
        self.probe.longest.clear()  # what a first run allocates is no step

    def ask(self, case: HurriedCase) -> HurriedOutcome:
        """Run one request."""
        image: bytes | Look = self._looks[case.page % KNOWN_PAGES]
        if case.sight != "looked":
            image = self._pages.page(case.sight, case.page)
        question, tokens = HURRIED_QUESTIONS[case.question]
        usual = self.alone.get((case.sight, case.question), FAR)
        deadline_s = FAR if math.isinf(case.share) else case.share * usual
        start = time.perf_counter()
        stream = self.model.stream(
            image,
            question,
            max_new_tokens=tokens,
            deadline_s=deadline_s,
            priority=case.priority,
            best_effort=case.best_effort,
        )
        try:
            answer = stream.answer
        except DeadlineError as error:
            end = time.perf_counter()
            decided = self.probe.predicted_at(stream.request)
            decision = None if decided is None else end - decided
            return HurriedOutcome(
                case, deadline_s, REFUSED, end - start, error.predicted_s, decision
            )
        seconds = time.perf_counter() - start
        self.probe.predicted_at(stream.request)
        self.versions = answer.provenance["versions"] | {
            "engine": answer.provenance["engine"]["engine_version"]
        }
        report = answer.deadline
        assert report is not None
        stage = report.skipped[0] if report.skipped else None
        return HurriedOutcome(
            case, deadline_s, answer.finish_reason, seconds, report.predicted_s, None, stage
        )

    def ask_all(
        self, cases: list[HurriedCase], clients: int, told: Callable[[int], Any]
    ) -> list[HurriedOutcome]:
        """Run requests by several clients, each of which asks one after the other.

        Args:
            cases: the requests.
            clients: threads.
            told: gets 1 for each request that has ended.
        """
        outcomes: list[HurriedOutcome] = []
        failures: list[BaseException] = []
        waiting = iter(cases)
        turn = threading.Lock()

        def serve() -> None:
            try:
                while True:
                    with turn:
                        case = next(waiting, None)
                    if case is None or failures:
                        return
                    outcome = self.ask(case)
                    with turn:
                        outcomes.append(outcome)
                        told(1)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return outcomes
