"""Requests in the thread that owns the engine: page -> prompt -> prefill -> tokens -> answer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from pulse_edge.answer import Answer, Request, Usage
from pulse_edge.audit.log import AuditLog
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.cancellation import Cancelled, Paused
from pulse_edge.decode.constraint import Grammars
from pulse_edge.decode.lanes import Lane, Lanes
from pulse_edge.decode.logprobs import Logprobs
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.sampler import Logits, Sampler
from pulse_edge.decode.scoring import OptionScore, Scorer
from pulse_edge.decode.sequence import Pieces, Sequence
from pulse_edge.delivery import Delivery
from pulse_edge.engines.engine import Engine
from pulse_edge.job import Job as Job
from pulse_edge.job import deadline_report
from pulse_edge.known import known_record
from pulse_edge.page.encoder import PageEncoder, PlacedPage
from pulse_edge.page.preparation import PreparedPage
from pulse_edge.progress import Progress
from pulse_edge.provenance import provenance
from pulse_edge.rates import Rates, Work
from pulse_edge.text.detokenizer import TextStream
from pulse_edge.text.styles import answer_lead
from pulse_edge.text.template import Prompt, render
from pulse_edge.text.tokenizer import Tokenizer

# Prompt tokens of a piece of a prefill that may have to stop. At 7B width on a CPU, pieces of 128
# take 8 % longer than the whole, pieces of 512 no longer.
PIECE = 128  # of a page that gives way to others: they wait for a piece
DEADLINE_PIECE = 512  # what was done until the deadline is kept piece by piece
SLOW_TOWER_S = 0.5  # from which on views run one by one, so that their progress can be told


class Runner:
    """Runs requests on an engine: as many at a time as it has slots.

    One of them is prefilled at a time. Between pieces of its prefill the others take a step.
    `predict` is for any thread. Everything else belongs to the engine's thread.

    Args:
        bundle: as `open_bundle` returns it.
        engine: runs the bundle.
        tokenizer: of the bundle.
        told: of the progress of slow stages.
        verified: see `provenance`.
        logs: get a line for each answer.
        lanes: of the engine.
        wanted: whether a request waits that background requests give way to.
        host: lets the other requests under way take a step each.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        tokenizer: Tokenizer,
        told: Progress | None,
        verified: Mapping[str, object],
        logs: tuple[AuditLog, ...],
        lanes: Lanes,
        wanted: Callable[[], bool],
        host: Callable[[], None],
    ) -> None:
        spec = bundle.manifest.model
        self.engine = engine
        self.pages = PageEncoder(spec, engine)
        self.lanes = lanes
        self.rates = Rates({"bundle": bundle.digest, "engine": engine.describe()})
        self._bundle = bundle
        self._eos = spec.text.eos
        self._told = told
        self._verified = verified
        self._logs = logs
        self._wanted = wanted
        self._host = host
        self._tokenizer = tokenizer
        self._ngrams = {lane: Ngrams(tokenizer.numbers) for lane in self.lanes.all}
        self.grammars = Grammars(tokenizer, self._eos, answer_lead(spec.prompt))

    def forget(self) -> None:
        """Drop what earlier requests left behind."""
        self.pages.forget()
        self.lanes.forget()
        for ngrams in self._ngrams.values():
            ngrams.forget()

    @property
    def sequence(self) -> Sequence:
        """What slot 0 holds."""
        return self.lanes.all[0].sequence

    def predict(self, run: Job, page: PreparedPage | None) -> float | None:
        """Predicted seconds from a request's turn to its end; None if too little is known.

        It renders the prompt, which `answer`, `look` and `score` need.
        """
        placed = None if page is None else self.pages.place(page)
        prompt = _render(run.request.ids, placed)
        run.rendered = placed, prompt
        known = self.lanes.known(prompt.keys)
        work = self._work(run.request, placed, prompt, known)
        run.prefill_s = self.rates.seconds(Work(work.views, work.tokens))
        slower = 1 + self.engine.row_cost * min(self.lanes.busy, len(self.lanes.all) - 1)
        return self.rates.seconds(work, slower)

    def answer(
        self, run: Job, page: PreparedPage | None, delivery: Delivery
    ) -> Generator[None, None, Answer]:
        """One request from its turn to its end.

        With several slots it yields before each decode step, which may then be run together with
        those of other requests (`Lanes.share`).

        Returns:
            The answer.

        Raises:
            Paused: it has given way, and must be called again with the same `run`.
            PulseEdgeError: it failed.
        """
        run.watch.begin_turn()
        try:
            with suppress(Cancelled), self._lane(run) as lane:
                for piece in self._run(run, page, delivery, lane):
                    if piece:
                        delivery.put(piece)
                    else:
                        yield
        except Paused:
            run.watch.end_turn()
            raise
        answer = self.summary(run, delivery)
        if run.work is not None:
            self.rates.add(
                run.work, answer, alone=not run.company and not delivery.out.shared_steps
            )
        return answer

    def look(
        self,
        run: Job,
        page: PreparedPage | None,
        delivery: Delivery,
        then: Callable[[Logits, Lane], None] | None = None,
    ) -> None:
        """Prefill a prompt that nothing is generated for. Raises like `answer`.

        Args:
            run: of the request.
            page: in the prompt.
            delivery: of the request.
            then: gets the logits [vocab] after the prompt, which are valid until it uses the
                engine. It leaves the cache as it finds it.
        """
        run.watch.begin_turn()
        try:
            with suppress(Cancelled), self._lane(run) as lane:
                logits = self._prefill(run, page, delivery, lane)
                timings = run.watch.timings(delivery.out)
                if run.work is not None:
                    self.rates.add_prefill(run.work, timings.vision, timings.prefill)
                if then is not None:
                    then(logits, lane)
        except Paused:
            run.watch.end_turn()
            raise

    def score(
        self,
        options: tuple[str, ...],
        scores: list[OptionScore],
        run: Job,
        page: PreparedPage | None,
        delivery: Delivery,
    ) -> None:
        """Add to `scores` one for each of `options`, or none if the request is cancelled."""

        def between() -> None:
            delivery.cancellation.check()
            self._host_others(run)

        def then(logits: Logits, lane: Lane) -> None:
            scorer = Scorer(lane.engine, self._tokenizer, self._eos)
            try:
                scores.extend(scorer.score(logits, options, between))
            except Exception:  # what it left in the cache may be NaN
                lane.sequence.reset()
                raise

        self.look(run, page, delivery, then)

    @contextmanager
    def _lane(self, run: Job) -> Iterator[Lane]:
        """The lane of a request while it runs."""
        assert run.rendered is not None, "a request runs that was not predicted"
        lane = self.lanes.enter(run.rendered[1])
        run.company = run.company or self.lanes.busy > 1
        try:
            yield lane
        finally:
            self.lanes.leave(lane)

    def _host_others(self, run: Job) -> None:
        """Let the other requests under way take a step, which is not this request's time."""
        if self.lanes.busy > 1:
            with run.watch.aside():
                self._host()

    def summary(self, run: Job, delivery: Delivery) -> Answer:
        """The answer of a request that ends now, which goes to the audit logs."""
        out = delivery.out
        if delivery.expired and out.finish_reason == "cancelled":
            out.finish_reason = "deadline"
        page = run.page
        request = run.request
        usage = Usage(
            prompt_tokens=len(run.prompt.keys) if run.prompt else 0,
            image_tokens=len(page.tokens) if page else 0,
            cached_tokens=run.reused or 0,
            new_tokens=len(out.tokens),
            drafted_tokens=out.drafted,
            accepted_tokens=out.accepted,
        )
        image = page.record if page else None
        source = provenance(
            self._bundle, self.engine, image, request.prompt, request.params, self._verified
        )
        if request.known:
            source["known"] = known_record(request.known)
        if out.shared_steps:
            source["engine"]["shared_steps"] = out.shared_steps
        answer = Answer(
            delivery.text,
            tuple(out.tokens),
            out.finish_reason,
            usage,
            run.watch.timings(out),
            source,
            deadline_report(run, delivery),
            None if request.params.logprobs is None else tuple(out.logprobs),
            checks=page.page.checks.result() if page and page.page.checks else (),
        )
        for log in self._logs:
            log.append(answer)
        return answer

    def _run(
        self, run: Job, page: PreparedPage | None, delivery: Delivery, lane: Lane
    ) -> Iterator[str]:
        """Yield the answer's text, and record in `run` how far the request has come."""
        request = run.request
        logits = self._prefill(run, page, delivery, lane)
        assert run.prompt is not None
        params = request.params
        text = TextStream(self._tokenizer, params.stop)
        grammar = self.grammars.constraint(params.schema)
        sampler = Sampler(params, grammar, Logprobs.of(params.logprobs, self._tokenizer))
        ngrams = self._ngrams[lane] if params.speculate else None
        if ngrams is not None:
            ngrams.begin(run.prompt.keys)
        out = delivery.out
        with lane.sequence.appending(out.tokens):
            yield from generate(
                lane.engine, logits, params, self._eos, text, out, ngrams, sampler, lane.handover
            )

    def _prefill(
        self, run: Job, page: PreparedPage | None, delivery: Delivery, lane: Lane
    ) -> Logits:
        request = run.request
        told = delivery.progress(self._told)
        cancellation = delivery.cancellation
        assert run.rendered is not None
        run.page, run.prompt = placed, prompt = run.rendered
        reused = lane.sequence.rewind_to(prompt, self.lanes.others(lane))
        work = self._work(request, placed, prompt, reused)
        if run.work is None:
            run.work = work
            run.reused = reused
        pieces = self._pieces(run, delivery)
        features = None
        if page is not None:
            self.pages.page = page
            if lane.sequence.needs_page(prompt):
                usual = self.rates.seconds(Work(work.views, 0))
                delivery.expect(usual)
                slow = self._told is not None and (usual is None or usual > SLOW_TOWER_S)
                between = partial(self._between_views, run, delivery)
                features = self.pages.encode(
                    page,
                    run.watch.stage,
                    told,
                    cancellation,
                    between if slow or self.lanes.busy > 1 else None,
                )
        delivery.expect(self.rates.seconds(Work(0, work.tokens)))
        with run.watch.stage("prefill"):
            return lane.sequence.prefill(prompt, features, told, cancellation, pieces)

    def _between_views(self, run: Job, delivery: Delivery) -> None:
        delivery.cancellation.check()
        self._host_others(run)

    def _pieces(self, run: Job, delivery: Delivery) -> Pieces | None:
        """How the prefill may stop or give way; None if nothing may come between."""
        background = run.request.terms.priority == "background"
        company = self.lanes.busy > 1
        if not background and run.request.terms.deadline is None and not company:
            return None

        def between() -> None:
            delivery.cancellation.check()
            if background and self._wanted():
                raise Paused
            self._host_others(run)

        return Pieces(PIECE if background else DEADLINE_PIECE, between)

    def _work(
        self, request: Request, placed: PlacedPage | None, prompt: Prompt, known: int
    ) -> Work:
        needed = bool((prompt.rows[known:] >= self.engine.table_rows).any())
        views = self.pages.views_to_run(placed.page) if placed and needed else 0
        question = request.prompt if request.generates else None
        return Work(views, len(prompt.keys) - known, question, request.params.max_new_tokens)


def _render(ids: tuple[int, ...], page: PlacedPage | None) -> Prompt:
    return render(ids) if page is None else render(ids, page.key, page.tokens)
