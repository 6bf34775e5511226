"""One request, in order: image and question -> text -> `Answer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pulse_edge.answer import Answer, Request, Stopwatch, Usage
from pulse_edge.assets import EMBEDDED
from pulse_edge.audit.log import AuditLog, audit_logs
from pulse_edge.bundle.bundle import Bundle, open_while_hashing
from pulse_edge.bundle.manifest import TOKENIZER
from pulse_edge.bundle.trust import CHECKSUM, Verified, check_trust
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.chat import Chat
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import Generation
from pulse_edge.decode.sampler import Logits
from pulse_edge.decode.sequence import Sequence
from pulse_edge.delivery import Delivery
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page.encoder import EncodedPage, PageEncoder
from pulse_edge.page.preparation import Preparation, PreparedPage, check_alpha, pending_page
from pulse_edge.page.source import ImageSource
from pulse_edge.params import AlphaMode, GenerationParams, Patience
from pulse_edge.progress import Progress
from pulse_edge.provenance import provenance
from pulse_edge.stream import Stream
from pulse_edge.text.detokenizer import TextStream
from pulse_edge.text.template import Prompt, PromptBuilder, render
from pulse_edge.worker import Worker

T = TypeVar("T")


def load(
    bundle: str | Path | None = None,
    device: str = "auto",
    *,
    threads: int = 0,
    context: int | None = None,
    prefill_chunk: int | None = None,
    engine: str = "auto",
    check_hashes: bool = True,
    alpha: AlphaMode = "white",
    expect: str | None = None,
    trusted_keys: str | Path | None = None,
    audit: str | Path | None = None,
    progress: Progress | None = None,
) -> Model:
    """Open a bundle and its engine.

    Args:
        bundle: a directory that `pulse-edge export` made; None is the small demonstration model
            inside the package.
        device: `auto` (what the bundle was exported for), `cpu` or `cuda`.
        threads: CPU threads; 0 leaves their number to the engine.
        context: cap on prompt + answer in tokens, for less cache memory.
        prefill_chunk: prompt tokens at a time; 0 for all at once, None for what suits the device.
        engine: a name from the engine registry; `auto` chooses one that runs this bundle on this
            device.
        check_hashes: False skips the SHA-256 check of the files, not of their presence and size.
        alpha: what becomes of transparent pixels of a page: `white` composites them on white, as
            paper is; `drop` shows the colours below them, as the authors' code does.
        expect: the seal that the bundle must have, 64 hex digits.
        trusted_keys: a folder of public keys, or one key's file; one of them must have signed the
            bundle.
        audit: a log file that gets a line for each answer, without text, path or name. An answer
            that cannot be logged is withheld.
        progress: called with the progress of slow stages. While the bundle loads, several threads
            call it; during a request, the model's worker thread does.

    Raises:
        BundleError: the bundle is missing, incomplete or altered. `TrustError` if it is not one
            that may run here, by the arguments or by the device's configuration file.
        AuditError: the audit log cannot be written.
        EngineError: the engine is not installed, or cannot run the bundle on this device.
        ParameterError: a parameter is out of range.
    """
    check_alpha(alpha)  # before the bundle takes seconds
    options = EngineOptions(device, threads, context, prefill_chunk, engine)
    path = EMBEDDED if bundle is None else bundle
    with open_while_hashing(path, check_hashes, progress) as opened:
        verified = check_trust(opened, expect, trusted_keys, hashed=check_hashes)
        logs = audit_logs(audit)
        if progress:
            progress("loading", 0, 1)
        loaded = open_engine(opened, options)
        return Model(opened, loaded, progress, alpha, verified, logs)


class Model:
    """A loaded bundle.

    Safe to use from several threads. The thread that first reads a stream prepares its page. The
    engine's work runs in the model's own thread, one request after the other, in the order in which
    they were ready. A slow reader does not delay other requests. A process forked after the first
    request cannot use the model.

    Args:
        bundle: as `open_bundle` returns it.
        engine: runs the bundle. From the first request on it belongs to the model.
        progress: as in `load`.
        alpha: as in `load`.
        verified: how the bundle was checked, for provenance.
        logs: get a line for each answer.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        progress: Progress | None = None,
        alpha: AlphaMode = "white",
        verified: Verified = CHECKSUM,
        logs: tuple[AuditLog, ...] = (),
    ) -> None:
        spec = bundle.manifest.model
        self.bundle = bundle
        self.engine = engine
        self._preparation = Preparation(spec, alpha)
        self._eos = spec.text.eos
        self._progress = progress
        self._verified = asdict(verified)
        self._logs = logs
        tokenizer = bundle.read(TOKENIZER)
        self._template = PromptBuilder.of(spec, tokenizer, str(bundle.file(TOKENIZER)))
        self.tokenizer = self._template.tokenizer
        self._pages = PageEncoder(spec, engine)
        self._sequence = Sequence(engine)
        self._ngrams = Ngrams(self.tokenizer.numbers)
        self.worker = Worker()

    def ask(
        self,
        image: ImageSource | None,
        question: str,
        *,
        timeout: float | None = None,
        **params: Any,
    ) -> Answer:
        """Answer one question about one page.

        Args:
            image: path, bytes or binary file object of an image (PNG, JPEG, TIFF, BMP, WebP), a PIL
                image, uint8 pixels [height, width] or [height, width, 1|3|4], a `Recording` or the
                path of one, which is drawn first; None for a question without a page.
            question: not empty.
            timeout: seconds to wait for other requests until this one's turn comes; 0 asks only if
                the model is idle, None waits as long as it takes. It does not bound the answer.
            params: fields of `GenerationParams`.

        Raises:
            ImageError: the image or recording cannot be read.
            ParameterError: the question or a parameter is wrong.
            ContextError: the prompt does not fit the context.
            EngineError: the engine failed, or memory is short.
            QueueTimeoutError: the turn did not come in time. The request was withdrawn.
        """
        return self.stream(image, question, timeout=timeout, **params).answer

    def stream(
        self,
        image: ImageSource | None,
        question: str,
        *,
        timeout: float | None = None,
        **params: Any,
    ) -> Stream:
        """Like `ask`, lazily: iterate for text while it is generated; `.answer` drains the rest.

        A file is read, and a recording drawn, before this returns. When the stream is first read,
        the page is decoded, in the reader's thread, and the request runs.
        """
        patience = Patience(timeout)
        options = GenerationParams.of(params)
        ids = self._template.first_turn(question, image is not None)
        prompt = self._template.text(question, image is not None)
        page = None if image is None else pending_page(image)
        return self._start(Request(tuple(ids), prompt, page, options, patience))

    def chat(self, image: ImageSource | None) -> Chat:
        """A conversation about one page, as `ask` takes it; each turn sees the ones before.

        The image is read once, here, and decoded by the first turn. Raises `ImageError` if it
        cannot be read.
        """
        page = None if image is None else pending_page(image, keep=True)
        return Chat(self._template, page, self._start)

    def forget(self) -> None:
        """Drop what earlier requests left behind, so that the next one computes everything.

        It drops the last page's features, the cache's content and the n-grams that speculation
        drafts from. Waits for requests that have begun.
        """
        self.worker.call(lambda _: self._forget())

    def run_on_engine(self, work: Callable[[Engine, Cancellation], T]) -> T:
        """Call `work` with the engine, in the model's thread, and wait for it.

        An engine belongs to one thread: CUDA graphs are captured per thread. `work` finds the cache
        empty, after the requests that were begun, and may fill it.

        Args:
            work: gets the engine, and a cancellation that is requested if the wait is interrupted.

        Returns:
            What `work` returned.
        """

        def run(cancellation: Cancellation) -> T:
            self._forget()
            try:
                return work(self.engine, cancellation)
            finally:
                self._sequence.reset()

        return self.worker.call(run)

    def _forget(self) -> None:
        self._pages.forget()
        self._sequence.rewind(0)
        self._ngrams.forget()

    def _start(self, request: Request) -> Stream:
        return Stream(request, partial(self._begin, request), Delivery(self.worker.thread))

    def _begin(self, request: Request, delivery: Delivery) -> None:
        """Prepare a request in its reader's thread, and queue it."""
        watch = Stopwatch(delivery.out.clock)
        patience = request.patience
        page = None
        if request.page is not None:
            page = request.page.prepare(
                self._preparation, self._pages.page, watch, patience, delivery.cancellation
            )
        self.worker.begin(delivery, partial(self._answer, request, page, watch), patience)

    def _answer(
        self, request: Request, page: PreparedPage | None, watch: Stopwatch, delivery: Delivery
    ) -> Answer:
        """One request from its turn to its end, in the worker's thread."""
        watch.begin_turn()
        run = _Run()
        with suppress(Cancelled):
            for piece in self._run(request, page, run, delivery, watch):
                delivery.put(piece)
        answer = self._summary(request, run, delivery, watch)
        for log in self._logs:
            log.append(answer)
        return answer

    def _summary(self, request: Request, run: _Run, delivery: Delivery, watch: Stopwatch) -> Answer:
        out = delivery.out
        page = run.page
        usage = Usage(
            prompt_tokens=len(run.prompt.keys) if run.prompt else 0,
            image_tokens=len(page.tokens) if page else 0,
            cached_tokens=run.reused,
            new_tokens=len(out.tokens),
            drafted_tokens=out.drafted,
            accepted_tokens=out.accepted,
        )
        timings = watch.timings(out)
        image = page.record if page else None
        source = provenance(
            self.bundle, self.engine, image, request.prompt, request.params, self._verified
        )
        tokens = tuple(out.tokens)
        return Answer(delivery.text, tokens, out.finish_reason, usage, timings, source)

    def _run(
        self,
        request: Request,
        page: PreparedPage | None,
        run: _Run,
        delivery: Delivery,
        watch: Stopwatch,
    ) -> Iterator[str]:
        """Yield the answer's text, and record in `run` how far the request has come."""
        progress = delivery.progress(self._progress)
        cancellation = delivery.cancellation
        if page is not None:
            run.page = self._pages.encode(page, watch.stage, progress, cancellation)
        prompt = run.prompt = _render(request.ids, run.page)
        run.reused = self._sequence.rewind_to(prompt)
        with watch.stage("prefill"):
            features = run.page.features if run.page else None
            logits = self._sequence.prefill(prompt, features, progress, cancellation)
        yield from self._decode(prompt, logits, request.params, delivery.out)

    def _decode(
        self, prompt: Prompt, logits: Logits, params: GenerationParams, out: Generation
    ) -> Iterator[str]:
        text = TextStream(self.tokenizer, params.stop)
        ngrams = self._ngrams if params.speculate else None
        if ngrams is not None:
            ngrams.begin(prompt.keys)
        with self._sequence.appending(out.tokens):
            yield from generate(self.engine, logits, params, self._eos, text, out, ngrams)


def _render(ids: tuple[int, ...], page: EncodedPage | None) -> Prompt:
    return render(ids) if page is None else render(ids, page.key, page.tokens)


@dataclass
class _Run:
    """How far a request has come. A cancelled one reports it in its answer."""

    page: EncodedPage | None = None
    prompt: Prompt | None = None
    reused: int = 0  # positions of the prompt that were in the cache
