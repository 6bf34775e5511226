"""Requests in the thread that owns the engine: page -> prompt -> prefill -> tokens -> answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pulse_edge.answer import Answer, Request, Stopwatch, Usage
from pulse_edge.audit.log import AuditLog
from pulse_edge.bundle.bundle import Bundle
from pulse_edge.cancellation import Cancelled, Paused
from pulse_edge.deadline import DeadlineReport
from pulse_edge.decode.constraint import Grammars
from pulse_edge.decode.logprobs import Logprobs
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.sampler import Logits, Sampler
from pulse_edge.decode.scoring import OptionScore, Scorer
from pulse_edge.decode.sequence import Pieces, Sequence
from pulse_edge.delivery import Delivery
from pulse_edge.engines.engine import Engine
from pulse_edge.page.encoder import PageEncoder, PlacedPage
from pulse_edge.page.preparation import PreparedPage
from pulse_edge.progress import Progress
from pulse_edge.provenance import provenance
from pulse_edge.rates import Rates, Work
from pulse_edge.text.detokenizer import TextStream
from pulse_edge.text.template import Prompt, render
from pulse_edge.text.tokenizer import Tokenizer

# Prompt tokens of a piece of a prefill that may have to stop. At 7B width on a CPU, pieces of 128
# take 8 % longer than the whole, pieces of 512 no longer.
PIECE = 128  # of a page that gives way to others: they wait for a piece
DEADLINE_PIECE = 512  # what was done until the deadline is kept piece by piece


@dataclass
class Job:
    """How far a request has come. A cancelled one reports it in its answer."""

    request: Request
    watch: Stopwatch
    page: PlacedPage | None = None
    prompt: Prompt | None = None
    rendered: tuple[PlacedPage | None, Prompt] | None = None  # ahead of its turn
    reused: int | None = None  # positions of the prompt that were in the cache at its beginning
    work: Work | None = None  # what there was to do at its beginning
    predicted_s: float | None = None  # from its submission to its end


class Runner:
    """Runs requests on an engine, one at a time.

    `predict` is for any thread. Everything else belongs to the engine's thread.

    Args:
        bundle: as `open_bundle` returns it.
        engine: runs the bundle.
        tokenizer: of the bundle.
        told: of the progress of slow stages.
        verified: see `provenance`.
        logs: get a line for each answer.
        kept_bytes: see `Sequence`.
        wanted: whether a request waits that background requests give way to.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        tokenizer: Tokenizer,
        told: Progress | None,
        verified: Mapping[str, object],
        logs: tuple[AuditLog, ...],
        kept_bytes: int,
        wanted: Callable[[], bool],
    ) -> None:
        spec = bundle.manifest.model
        self.engine = engine
        self.pages = PageEncoder(spec, engine)
        self.sequence = Sequence(engine, kept_bytes)
        self.rates = Rates({"bundle": bundle.digest, "engine": engine.describe()})
        self._bundle = bundle
        self._eos = spec.text.eos
        self._told = told
        self._verified = verified
        self._logs = logs
        self._wanted = wanted
        self._tokenizer = tokenizer
        self._ngrams = Ngrams(tokenizer.numbers)
        self._scorer = Scorer(engine, tokenizer, self._eos)
        self.grammars = Grammars(tokenizer, self._eos)

    def forget(self) -> None:
        """Drop what earlier requests left behind."""
        self.pages.forget()
        self.sequence.kept.forget()
        self.sequence.rewind(0)
        self._ngrams.forget()

    def predict(self, run: Job, page: PreparedPage | None) -> float | None:
        """Predicted seconds from a request's turn to its end; None if too little is known.

        It renders the prompt, which `answer`, `look` and `score` need.
        """
        placed = None if page is None else self.pages.place(page)
        prompt = _render(run.request.ids, placed)
        run.rendered = placed, prompt
        known = self.sequence.known(prompt.keys)
        return self.rates.seconds(self._work(run.request, placed, prompt, known))

    def answer(self, run: Job, page: PreparedPage | None, delivery: Delivery) -> Answer:
        """One request from its turn to its end.

        Raises:
            Paused: it has given way, and must be called again with the same `run`.
            PulseEdgeError: it failed.
        """
        run.watch.begin_turn()
        try:
            with suppress(Cancelled):
                for piece in self._run(run, page, delivery):
                    delivery.put(piece)
        except Paused:
            run.watch.end_turn()
            raise
        answer = self.summary(run, delivery)
        if run.work is not None:
            self.rates.add(run.work, answer)
        return answer

    def look(
        self,
        run: Job,
        page: PreparedPage | None,
        delivery: Delivery,
        then: Callable[[Logits], None] | None = None,
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
            with suppress(Cancelled):
                logits = self._prefill(run, page, delivery)
                timings = run.watch.timings(delivery.out)
                if run.work is not None:
                    self.rates.add_prefill(run.work, timings.vision, timings.prefill)
                if then is not None:
                    then(logits)
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

        def then(logits: Logits) -> None:
            try:
                scores.extend(self._scorer.score(logits, options, delivery.cancellation.check))
            except Exception:  # what it left in the cache may be NaN
                self.sequence.reset()
                raise

        self.look(run, page, delivery, then)

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
        answer = Answer(
            delivery.text,
            tuple(out.tokens),
            out.finish_reason,
            usage,
            run.watch.timings(out),
            source,
            _deadline_report(run, delivery),
            None if request.params.logprobs is None else tuple(out.logprobs),
        )
        for log in self._logs:
            log.append(answer)
        return answer

    def _run(self, run: Job, page: PreparedPage | None, delivery: Delivery) -> Iterator[str]:
        """Yield the answer's text, and record in `run` how far the request has come."""
        request = run.request
        logits = self._prefill(run, page, delivery)
        assert run.prompt is not None
        params = request.params
        text = TextStream(self._tokenizer, params.stop)
        grammar = self.grammars.constraint(params.schema)
        sampler = Sampler(params, grammar, Logprobs.of(params.logprobs, self._tokenizer))
        ngrams = self._ngrams if params.speculate else None
        if ngrams is not None:
            ngrams.begin(run.prompt.keys)
        out = delivery.out
        with self.sequence.appending(out.tokens):
            yield from generate(self.engine, logits, params, self._eos, text, out, ngrams, sampler)

    def _prefill(self, run: Job, page: PreparedPage | None, delivery: Delivery) -> Logits:
        request = run.request
        told = delivery.progress(self._told)
        cancellation = delivery.cancellation
        assert run.rendered is not None, "a request runs that was not predicted"
        run.page, run.prompt = placed, prompt = run.rendered
        reused = self.sequence.rewind_to(prompt)
        work = self._work(request, placed, prompt, reused)
        if run.work is None:
            run.work = work
            run.reused = reused
        features = None
        if page is not None:
            self.pages.page = page
            if self.sequence.needs_page(prompt):
                delivery.expect(self.rates.seconds(Work(work.views, 0)))
                features = self.pages.encode(page, run.watch.stage, told, cancellation)
        delivery.expect(self.rates.seconds(Work(0, work.tokens)))
        with run.watch.stage("prefill"):
            return self.sequence.prefill(
                prompt, features, told, cancellation, self._pieces(request, delivery)
            )

    def _pieces(self, request: Request, delivery: Delivery) -> Pieces | None:
        background = request.terms.priority == "background"
        if not background and request.terms.deadline is None:
            return None

        def between() -> None:
            delivery.cancellation.check()
            if background and self._wanted():
                raise Paused

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


def _deadline_report(run: Job, delivery: Delivery) -> DeadlineReport | None:
    deadline = run.request.terms.deadline
    if deadline is None:
        return None
    late = delivery.out.finish_reason == "deadline"
    skipped = _skipped(run, delivery) if late else ()
    return DeadlineReport(deadline.seconds, run.predicted_s, not late, skipped)


def _skipped(run: Job, delivery: Delivery) -> tuple[str, ...]:
    """The stages of a request that a deadline has ended which are not done."""
    if delivery.out.first_token_at is not None:
        return ("decode",)
    stages: tuple[str, ...] = ("decode_image", "preprocess", "vision", "prefill", "decode")
    if run.request.page is None:
        stages = stages[3:]
    reached = [stage for stage in stages if stage in run.watch.reached]
    return stages[stages.index(reached[-1]) if reached else 0 :]
