"""One request, in order: image and question -> text -> `Answer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pulse_edge.answer import Answer, Delivery, Request, Stopwatch, Stream, Usage
from pulse_edge.assets import EMBEDDED
from pulse_edge.bundle.bundle import Bundle, open_while_hashing
from pulse_edge.bundle.manifest import TOKENIZER
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.chat import Chat
from pulse_edge.decode.loop import generate
from pulse_edge.decode.ngrams import Ngrams
from pulse_edge.decode.result import Generation
from pulse_edge.decode.sampler import Logits
from pulse_edge.decode.sequence import Sequence
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page.encoder import EncodedPage, PageEncoder
from pulse_edge.page.source import ImageSource, read_input
from pulse_edge.params import GenerationParams
from pulse_edge.progress import Progress
from pulse_edge.provenance import provenance
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
        progress: called with the progress of slow stages. While the bundle loads, several threads
            call it; during a request, the model's worker thread does.

    Raises:
        BundleError: the bundle is missing, incomplete or altered.
        EngineError: the engine is not installed, or cannot run the bundle on this device.
        ParameterError: a parameter is out of range.
    """
    options = EngineOptions(device, threads, context, prefill_chunk, engine)
    path = EMBEDDED if bundle is None else bundle
    with open_while_hashing(path, check_hashes, progress) as opened:
        if progress:
            progress("loading", 0, 1)
        return Model(opened, open_engine(opened, options), progress)


class Model:
    """A loaded bundle.

    Safe to use from several threads. Requests run in the model's own thread, one after the other,
    in the order in which their streams are first read. A slow reader does not delay other requests.
    A process forked after the first request cannot use the model.

    Args:
        bundle: as `open_bundle` returns it.
        engine: runs the bundle. From the first request on it belongs to the model.
        progress: as in `load`.
    """

    def __init__(self, bundle: Bundle, engine: Engine, progress: Progress | None = None) -> None:
        spec = bundle.manifest.model
        self.bundle = bundle
        self.engine = engine
        self._eos = spec.text.eos
        self._progress = progress
        self._template = PromptBuilder.of(spec, bundle.file(TOKENIZER))
        self.tokenizer = self._template.tokenizer
        self._pages = PageEncoder(spec, engine)
        self._sequence = Sequence(engine)
        self._ngrams = Ngrams(self.tokenizer.numbers)
        self._worker = Worker()

    def ask(self, image: ImageSource | None, question: str, **params: Any) -> Answer:
        """Answer one question about one page.

        Args:
            image: path, bytes or binary file object of an image (PNG, JPEG, TIFF, BMP, WebP), a PIL
                image, uint8 pixels [height, width] or [height, width, 1|3|4], a `Recording` or the
                path of one, which is drawn first; None for a question without a page.
            question: not empty.
            params: fields of `GenerationParams`.

        Raises:
            ImageError: the image or recording cannot be read.
            ParameterError: the question or a parameter is wrong.
            ContextError: the prompt does not fit the context.
            EngineError: the engine failed.
        """
        return self.stream(image, question, **params).answer

    def stream(self, image: ImageSource | None, question: str, **params: Any) -> Stream:
        """Like `ask`, lazily: iterate for text while it is generated; `.answer` drains the rest.

        A file is read, and a recording drawn, before this returns; the request runs when the stream
        is first read.
        """
        ids = self._template.first_turn(question, image is not None)
        prompt = self._template.text(question, image is not None)
        page = None if image is None else read_input(image)
        return self._start(Request(tuple(ids), prompt, page, GenerationParams.of(params)))

    def chat(self, image: ImageSource | None) -> Chat:
        """A conversation about one page, as `ask` takes it; each turn sees the ones before.

        The image is read once, here. Raises `ImageError` if that fails.
        """
        page = None if image is None else read_input(image)
        return Chat(self._template, page, self._start)

    def forget(self) -> None:
        """Drop what earlier requests left behind, so that the next one computes everything.

        It drops the last page's features, the cache's content and the n-grams that speculation
        drafts from. Waits for requests that have begun.
        """
        self._worker.call(lambda _: self._forget())

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

        return self._worker.call(run)

    def _forget(self) -> None:
        self._pages.forget()
        self._sequence.rewind(0)
        self._ngrams.forget()

    def _start(self, request: Request) -> Stream:
        worker = self._worker
        produce = partial(self._answer, request)
        return Stream(request, lambda delivery: worker.begin(delivery, produce))

    def _answer(self, request: Request, delivery: Delivery) -> Answer:
        """One request from the beginning to the end, in the worker's thread."""
        watch = Stopwatch()
        run = _Run()
        with suppress(Cancelled):
            for piece in self._run(request, run, delivery, watch):
                delivery.put(piece)
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
        source = provenance(self.bundle, self.engine, image, request.prompt, request.params)
        tokens = tuple(out.tokens)
        return Answer(delivery.text, tokens, out.finish_reason, usage, timings, source)

    def _run(
        self, request: Request, run: _Run, delivery: Delivery, watch: Stopwatch
    ) -> Iterator[str]:
        """Yield the answer's text, and record in `run` how far the request has come."""
        progress = delivery.progress(self._progress)
        cancellation = delivery.cancellation
        if request.page is not None:
            run.page = self._pages.encode(request.page, watch.stage, progress, cancellation)
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
