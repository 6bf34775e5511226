"""A model that is loaded: questions about pages in, answers out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pulse_edge.answer import Answer
from pulse_edge.assets import EMBEDDED
from pulse_edge.audit.log import AuditLog, audit_logs
from pulse_edge.bundle.bundle import Bundle, open_while_hashing
from pulse_edge.bundle.trust import CHECKSUM, Verified, check_trust
from pulse_edge.cancellation import Cancellation
from pulse_edge.chat import Chat
from pulse_edge.decode.lanes import Lanes
from pulse_edge.decode.scoring import OptionScore, checked_options
from pulse_edge.dispatcher import Dispatcher
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.health import Health, SelfTest, examine
from pulse_edge.known import known_values, with_known
from pulse_edge.log import LOGGER
from pulse_edge.look import Look
from pulse_edge.page.preparation import (
    PendingPage,
    Preparation,
    check_alpha,
    pending_page,
)
from pulse_edge.page.source import ImageSource
from pulse_edge.panels.panel import Panel
from pulse_edge.params import AlphaMode, GenerationParams, Priority, Terms
from pulse_edge.progress import Progress
from pulse_edge.runner import Runner
from pulse_edge.stream import Stream
from pulse_edge.text.template import PromptBuilder
from pulse_edge.worker import Worker

if TYPE_CHECKING:
    from pulse_edge.panels.result import Result

T = TypeVar("T")
KEPT_BYTES = 1 << 30  # by default
TEST_QUESTION = "What is an ECG?"  # of a self-test, if the bundle has none


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
    queue_limit: int | None = None,
    kept_bytes: int = KEPT_BYTES,
    slots: int = 1,
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
        queue_limit: most requests that wait; one more raises `QueueFullError`. None is any number.
        kept_bytes: most memory for pages that gave way to others in the KV cache. Such a page is
            not computed again. Engines on a GPU keep none: to compute it again is as fast.
        slots: requests that may decode at the same time, each with a KV cache of its own; on a CPU,
            from bundles for it. One step then serves all of them.
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
    options = EngineOptions(device, threads, context, prefill_chunk, engine, slots)
    path = EMBEDDED if bundle is None else bundle
    start = time.perf_counter()
    with open_while_hashing(path, check_hashes, progress) as opened:
        verified = check_trust(opened, expect, trusted_keys, hashed=check_hashes)
        logs = audit_logs(audit)
        if progress:
            progress("loading", 0, 1)
        loaded = open_engine(opened, options)
        seconds = time.perf_counter() - start
        LOGGER.info("loaded %s (seal %s) in %.2f s", opened.path, opened.digest, seconds)
        return Model(opened, loaded, progress, alpha, verified, logs, queue_limit, kept_bytes)


class Model:
    """A loaded bundle.

    Safe to use from several threads. The thread that first reads a stream prepares its page. The
    engine's work runs in the model's own thread, one request after the other, in the order in which
    they were ready. With several `slots`, as many of them decode at the same time. A slow reader
    does not delay other requests. A process forked after the first request cannot use the model.

    Args:
        bundle: as `open_bundle` returns it.
        engine: runs the bundle. From the first request on it belongs to the model.
        progress: as in `load`.
        alpha: as in `load`.
        verified: how the bundle was checked, for provenance.
        logs: get a line for each answer.
        queue_limit: as in `load`.
        kept_bytes: as in `load`.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        progress: Progress | None = None,
        alpha: AlphaMode = "white",
        verified: Verified = CHECKSUM,
        logs: tuple[AuditLog, ...] = (),
        queue_limit: int | None = None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        spec = bundle.manifest.model
        self.bundle = bundle
        self.engine = engine
        name = bundle.manifest.tokenizer
        self._template = PromptBuilder.of(spec, bundle.read(name), str(bundle.file(name)))
        self.tokenizer = self._template.tokenizer
        lanes = Lanes(engine, kept_bytes)
        self.worker = worker = Worker(queue_limit, len(lanes.all), lanes.share)
        self.runner = Runner(
            bundle,
            engine,
            self.tokenizer,
            progress,
            asdict(verified),
            logs,
            lanes,
            lambda: worker.wanted,
            worker.host,
        )
        preparation = Preparation(spec, alpha)
        self._dispatcher = Dispatcher(self._template, preparation, self.runner, worker)

    def ask(
        self,
        image: ImageSource | Look | None,
        question: str,
        *,
        timeout: float | None = None,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "interactive",
        known: Mapping[str, float] | None = None,
        **params: Any,
    ) -> Answer:
        """Answer one question about one page.

        Args:
            image: path, bytes or binary file object of an image (PNG, JPEG, TIFF, BMP, WebP), a PIL
                image, uint8 pixels [height, width] or [height, width, 1|3|4], a `Recording` or the
                path of one, which is drawn first; a `DrawnRecording`; a `Look`; None for a question
                without a page.
            question: not empty.
            timeout: seconds to wait for other requests until this one's turn comes; 0 asks only if
                the model is idle, None waits as long as it takes. It does not bound the answer.
            deadline_s: seconds for everything, the wait among them. When they are over, the answer
                is what there is, with `finish_reason` "deadline".
            best_effort: run also if the deadline is predicted to be missed.
            priority: `interactive` goes before `background`, whose page gives way between two
                pieces of its prefill and goes on later.
            known: values that the operator has, as {"hr": 72} (`known.SHORT_NAMES`). The prompt
                states them before the question, as given, and provenance lists them.
            params: fields of `GenerationParams`.

        Raises:
            ImageError: the image or recording cannot be read.
            ParameterError: the question or a parameter is wrong.
            ContextError: the prompt does not fit the context.
            EngineError: the engine failed, or memory is short.
            DeadlineError: the deadline would be missed, by the speeds measured so far.
            QueueFullError: too many requests wait (`queue_limit`).
            QueueTimeoutError: the turn did not come in time. The request was withdrawn.
        """
        terms = Terms(timeout, deadline_s, best_effort, priority)
        return self._stream(image, question, terms, params, known).answer

    def stream(
        self,
        image: ImageSource | Look | None,
        question: str,
        *,
        timeout: float | None = None,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "interactive",
        known: Mapping[str, float] | None = None,
        **params: Any,
    ) -> Stream:
        """Like `ask`, lazily: iterate for text while it is generated; `.answer` drains the rest.

        A file is read before this returns. When the stream is first read, the page is decoded, or
        drawn if it is a recording, in the reader's thread, and the request runs.
        """
        terms = Terms(timeout, deadline_s, best_effort, priority)
        return self._stream(image, question, terms, params, known)

    def chat(self, image: ImageSource | Look | None, turns: Iterable[tuple[str, str]] = ()) -> Chat:
        """A conversation about one page, as `ask` takes it; each turn sees the ones before.

        The image is read once, here, and decoded by the first turn. Raises `ImageError` if it
        cannot be read.

        Args:
            image: see `ask`.
            turns: questions and answers that went before, as text.
        """
        page = _pending(image, keep=True)
        return Chat(self._template, page, self._dispatcher.start, turns)

    def look(
        self,
        image: ImageSource,
        *,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "background",
    ) -> Look:
        """Prefill a page before anybody asks about it.

        The page is read and decoded here; the rest goes on after this returns. Raises like `ask`.

        Args:
            image: see `ask`.
            deadline_s: see `ask`; the prefill ends then.
            best_effort: see `ask`.
            priority: see `ask`.
        """
        terms = Terms(None, deadline_s, best_effort, priority)
        return self._dispatcher.look(pending_page(image, keep=True), terms)

    def score(
        self,
        image: ImageSource | Look | None,
        question: str,
        options: Iterable[str],
        *,
        timeout: float | None = None,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "interactive",
    ) -> tuple[OptionScore, ...]:
        """How likely the model is to give each of several answers. Raises like `ask`.

        Args:
            image: see `ask`.
            question: see `ask`.
            options: 1 to 64 answers, each another one.
            timeout: see `ask`.
            deadline_s: see `ask`. When it passes, nothing is returned.
            best_effort: see `ask`.
            priority: see `ask`.

        Returns:
            A score for each option, in order.

        Raises:
            DeadlineError: also if the deadline passed before all options were scored.
        """
        terms = Terms(timeout, deadline_s, best_effort, priority)
        texts = checked_options(options)
        page = _pending(image)
        return self._dispatcher.score(page, question, terms, texts)

    def panel(
        self,
        image: ImageSource | Look,
        panel: Panel | str | Path | None = None,
        *,
        deadline_s: float | None = None,
        best_effort: bool = False,
        priority: Priority = "interactive",
        given: Mapping[str, float] | None = None,
        cart: Mapping[str, float] | None = None,
        known: Mapping[str, float] | None = None,
    ) -> Result:
        """Ask the questions of a panel about one page, which the first one prefills.

        Raises like `ask`.

        Args:
            image: see `ask`.
            panel: a panel, its name, or its file; None is the one that suits the checkpoint.
            deadline_s: seconds for all of it, see `ask`. What is not reached is skipped.
            best_effort: see `ask`.
            priority: see `ask`.
            given: the caller's measurements, by name (`panels.measurements.QUANTITIES`), for the
                result. The model does not see them.
            cart: the cart's measurements, likewise.
            known: see `ask`. The result has them as `given`, and no value of the model's for them.

        Raises:
            ParameterError: also if the panel or a measurement is wrong.
        """
        from pulse_edge.panels.run import run_panel  # its patterns take 40 ms to compile

        Terms(None, deadline_s, best_effort, priority)  # refuses what is out of range
        questions = panel if isinstance(panel, Panel) else self._load_panel(panel)
        page = cache(lambda: _pending(image, keep=True))
        values = known_values(known)

        def ask(question: str, *, max_new_tokens: int, deadline_s: float | None) -> Answer:
            terms = Terms(None, deadline_s, best_effort, priority)
            params = GenerationParams(max_new_tokens=max_new_tokens)
            return self._dispatcher.stream(page(), question, terms, params, values).answer

        def score(
            question: str, options: Iterable[str], *, deadline_s: float | None
        ) -> tuple[OptionScore, ...]:
            terms = Terms(None, deadline_s, best_effort, priority)
            return self._dispatcher.score(page(), question, terms, checked_options(options))

        return run_panel(
            questions, ask, score, deadline_s=deadline_s, given=given, cart=cart, known=values
        )

    def _load_panel(self, panel: str | Path | None) -> Panel:
        from pulse_edge.panels.panel_file import default_panel, load_panel

        if panel is None:
            return default_panel(self.bundle.manifest.checkpoint.name)
        return load_panel(panel)

    def health(self) -> Health:
        """Whether the engine still gets on, and how many requests wait."""
        return examine(self.worker.running, self.worker.waiting)

    def self_test(self) -> SelfTest:
        """Generate one token without a page, and compare it with the bundle's recorded one.

        Raises:
            EngineError: the engine failed.
        """
        manifest = self.bundle.manifest
        recorded = manifest.self_test
        question = recorded.question if recorded else TEST_QUESTION
        answer = self.ask(None, question, max_new_tokens=1)
        token = answer.token_ids[0] if answer.token_ids else manifest.model.text.eos[0]
        expected = recorded.token if recorded else None
        passed = expected is None or token == expected
        return SelfTest(passed, token, expected, answer.timings.total)

    def close(self) -> None:
        """End all requests, as `Stream.close` does, and drop what they left behind.

        Any thread may call it. Later requests raise `PulseEdgeError`. The weights are freed with
        the last reference to the model. `with load(…) as model:` closes it at the end.
        """
        self.worker.close()
        if not self.worker.thread.is_alive():
            self.runner.forget()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forget(self) -> None:
        """Drop what earlier requests left behind, so that the next one computes everything.

        It drops the last page's features, the cache's content and the n-grams that speculation
        drafts from. Waits for requests that have begun.
        """
        self.worker.call(lambda _: self.runner.forget())

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
            self.runner.forget()
            try:
                return work(self.engine, cancellation)
            finally:
                self.runner.lanes.reset()

        return self.worker.call(run)

    def _stream(
        self,
        image: ImageSource | Look | None,
        question: str,
        terms: Terms,
        params: dict[str, Any],
        known: Mapping[str, float] | None,
    ) -> Stream:
        options = GenerationParams.of(params)
        values = known_values(known)
        text = with_known(question, values)
        return self._dispatcher.stream(_pending(image), text, terms, options, values)


def _pending(image: ImageSource | Look | None, keep: bool = False) -> PendingPage | None:
    if isinstance(image, Look):
        return image.page
    return None if image is None else pending_page(image, keep)
