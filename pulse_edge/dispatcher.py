"""Requests on their way from a caller's thread to the worker: prepared, predicted, queued."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue

from pulse_edge.answer import Answer, Request, Stopwatch
from pulse_edge.deadline import Deadline
from pulse_edge.decode.scoring import OptionScore
from pulse_edge.delivery import Delivery, Loop
from pulse_edge.errors import DeadlineError, PulseEdgeError
from pulse_edge.look import Look
from pulse_edge.page.preparation import PendingPage, Preparation, PreparedPage
from pulse_edge.params import GenerationParams, Terms
from pulse_edge.runner import Job, Runner
from pulse_edge.stream import Stream
from pulse_edge.text.template import PromptBuilder
from pulse_edge.worker import Worker

# What the worker's thread does for a request. It may have to do it again, after a pause.
Task = Callable[[Job, PreparedPage | None, Delivery], Answer | Loop | None]


class Dispatcher:
    """Brings requests to a worker. Safe to use from several threads.

    Args:
        template: makes prompts.
        preparation: how pages become views.
        runner: does the work, in the worker's thread.
        worker: has the thread.
    """

    def __init__(
        self, template: PromptBuilder, preparation: Preparation, runner: Runner, worker: Worker
    ) -> None:
        self._template = template
        self._preparation = preparation
        self._runner = runner
        self._worker = worker

    def stream(
        self,
        page: PendingPage | None,
        question: str,
        terms: Terms,
        params: GenerationParams,
        known: Mapping[str, float] | None = None,
    ) -> Stream:
        """The answer to a question, which nobody has begun to read.

        Args:
            page: that it is about.
            question: as the model gets it.
            terms: of the request.
            params: of the request.
            known: values that the question states, for provenance.
        """
        request = self._request(page, question, terms, params)
        return self.start(replace(request, known=known or {}))

    def start(self, request: Request) -> Stream:
        """The answer to a request, which nobody has begun to read."""
        self._runner.grammars.check(request.params.schema)
        return Stream(request, self._begin_stream, Delivery(self._worker.thread))

    def look(self, page: PendingPage, terms: Terms) -> Look:
        """Prepare a page here, and queue its prefill. `page` is kept for several requests.

        Raises:
            ImageError: the page cannot be decoded.
            DeadlineError: the deadline is predicted to be missed, or passed meanwhile.
            QueueFullError: too many requests wait.
        """
        ids = tuple(self._template.page_only())
        request = Request(ids, "", page, GenerationParams(), terms, generates=False)
        delivery = Delivery(self._worker.thread)
        run = Job(request, Stopwatch(delivery.out.clock))
        queued = self._queue_look(run, delivery)
        # What fails in the worker's thread, perhaps already now, is for `Look.wait`.
        error = None if queued else delivery.take_error()
        prepared = page.prepared
        if error is None and prepared is None:
            error = _too_late("the page was decoded", run)
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, which would hold it in turn
        assert prepared is not None
        return Look(page, prepared.sha256, delivery, run.predicted_s)

    def _queue_look(self, run: Job, delivery: Delivery) -> bool:
        """Whether the page was prepared and its prefill queued; else the request has ended."""
        deadline = run.request.terms.deadline
        results: SimpleQueue[bool] = SimpleQueue()

        def queue(own: Delivery) -> None:
            queued = False
            try:
                self._begin(run, own, self._runner.look)
                queued = True
            finally:
                results.put(queued)

        try:
            delivery.begin(queue, aside=deadline is not None)
            seconds = min(deadline.remaining, threading.TIMEOUT_MAX) if deadline else None
            with suppress(Empty):
                if results.get(timeout=seconds):
                    return True
            delivery.wait()  # for its error, or for what ends it at its deadline
        except BaseException:
            delivery.cancel()
            raise
        return False

    def score(
        self, page: PendingPage | None, question: str, terms: Terms, options: tuple[str, ...]
    ) -> tuple[OptionScore, ...]:
        """How likely each of several answers is. Raises like `Model.ask`."""
        request = self._request(page, question, terms, GenerationParams(), generates=False)
        delivery = Delivery(self._worker.thread)
        run = Job(request, Stopwatch(delivery.out.clock))
        scores: list[OptionScore] = []
        work = partial(self._runner.score, options, scores)
        try:
            delivery.begin(lambda own: self._begin(run, own, work), aside=bool(terms.deadline))
            delivery.wait()
        except BaseException:
            delivery.cancel()
            raise
        error = delivery.take_error()
        if error is None and not scores:
            error = (
                _too_late("all options were scored", run)
                if delivery.expired
                else PulseEdgeError(self._worker.closed_message)
            )
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame, which would hold it in turn
        return tuple(scores)

    def _request(
        self,
        page: PendingPage | None,
        question: str,
        terms: Terms,
        params: GenerationParams,
        generates: bool = True,
    ) -> Request:
        ids = self._template.first_turn(question, page is not None)
        prompt = self._template.text(question, page is not None)
        return Request(tuple(ids), prompt, page, params, terms, generates)

    def _begin_stream(self, request: Request, delivery: Delivery) -> None:
        run = Job(request, Stopwatch(delivery.out.clock))
        self._begin(run, delivery, self._runner.answer)

    def _begin(self, run: Job, delivery: Delivery, work: Task) -> None:
        """Prepare a request in this thread, and queue it."""
        request = run.request
        terms = request.terms
        self._worker.check_room()
        if terms.deadline is not None:
            delivery.limit(terms.deadline, partial(self._at_deadline, run, delivery))
        page = None
        if request.page is not None:
            known = self._runner.pages.page
            page = request.page.prepare(
                self._preparation, known, run.watch, terms.patience, delivery.cancellation
            )
        self._predict(run, page, delivery)
        if terms.deadline is not None and not terms.best_effort:
            _check_deadline(terms.deadline, run.predicted_s)
        # Nobody waits for the turn of a look.
        patience = None if work == self._runner.look else terms.patience
        self._worker.begin(delivery, partial(work, run, page), patience, terms.priority)

    def _predict(self, run: Job, page: PreparedPage | None, delivery: Delivery) -> None:
        delivery.seconds = self._runner.predict(run, page)
        delivery.prefill_s = run.prefill_s
        wait = self._worker.wait_s(run.request.terms.priority)
        if delivery.seconds is not None and wait is not None:
            deadline = run.request.terms.deadline
            spent = deadline.seconds - deadline.remaining if deadline else 0.0
            run.predicted_s = spent + wait + delivery.seconds

    def _at_deadline(self, run: Job, delivery: Delivery) -> Answer | None:
        return self._runner.summary(run, delivery) if run.request.generates else None


def _check_deadline(deadline: Deadline, predicted_s: float | None) -> None:
    if predicted_s is not None and predicted_s > deadline.seconds:
        raise DeadlineError(
            f"this request takes about {predicted_s:.3g} s here, over its deadline of "
            f"{deadline.seconds:g} s; give it more time, or ask with best_effort",
            predicted_s,
            deadline.seconds,
        )


def _too_late(what: str, run: Job) -> DeadlineError:
    """The error of a request whose deadline leaves nothing to return."""
    seconds = run.request.terms.deadline_s or 0.0
    problem = f"the deadline of {seconds:g} s passed before {what}; give it more time"
    return DeadlineError(problem, run.predicted_s or seconds, seconds)
