"""Requests and answers. docs/answer.schema.json is the JSON schema of an `Answer`."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.cancellation import Cancellation
from pulse_edge.decode.result import FinishReason, Generation
from pulse_edge.errors import PulseEdgeError
from pulse_edge.page.source import PageInput
from pulse_edge.params import GenerationParams
from pulse_edge.progress import Progress

_T = TypeVar("_T")
STAGES = ("decode_image", "preprocess", "vision", "prefill")


@dataclass(frozen=True)
class Request:
    """A prompt ready to run."""

    ids: tuple[int, ...]  # of the conversation, with `text.template.IMAGE` in the image's place
    prompt: str  # the same as text, for provenance
    page: PageInput | None
    params: GenerationParams


@dataclass(frozen=True)
class Usage:
    """Token counts.

    Args:
        prompt_tokens: of the whole prompt, the image's among them.
        image_tokens: of the image.
        cached_tokens: of the prompt; still in the KV cache, and not computed again.
        new_tokens: generated, without the end token.
        drafted_tokens: run ahead of sampling, with `GenerationParams.speculate`.
        accepted_tokens: drafted tokens that proved right, and took no step of their own.
    """

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    new_tokens: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds. Stages that were not needed (the page is known already) are 0.

    Args:
        decode_image: image file to RGB pixels.
        preprocess: pixels to normalised views.
        vision: views to features.
        prefill: the part of the prompt that was not in the KV cache.
        decode_steps: engine time of each step after the first token. With `speculate`, one step may
            give several tokens.
        sample: logits to tokens, in all.
        detokenise: tokens to text, in all.
        ttft: from the request's turn to its first token; None without one.
        tpot: (last token - first token) / (tokens - 1); None below two tokens.
        total: from the request's turn to its end.
    """

    decode_image: float
    preprocess: float
    vision: float
    prefill: float
    decode_steps: tuple[float, ...]
    sample: float
    detokenise: float
    ttft: float | None
    tpot: float | None
    total: float


@dataclass(frozen=True)
class Answer:
    """A finished (or cancelled) answer.

    Args:
        text: stripped of white space at both ends, without the stop string.
        token_ids: generated, without the end token.
        finish_reason: `eos`, `stop` (a stop string), `length` (`max_new_tokens`), `context` (the
            cache is full) or `cancelled`.
        usage: token counts.
        timings: seconds.
        provenance: what produced it, JSON-ready.
        notice: that it is for research only.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    provenance: dict[str, Any]
    notice: str = NOTICE

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


class Stopwatch:
    """Seconds of a request's stages, from its turn on."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stages = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to one of `STAGES`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] += time.perf_counter() - start

    def timings(self, out: Generation) -> Timings:
        first = out.first_token_at
        last = out.last_token_at
        count = len(out.tokens) + (out.finish_reason == "eos")
        return Timings(
            **self._stages,
            decode_steps=tuple(out.step_seconds),
            sample=out.sample_seconds,
            detokenise=out.detokenise_seconds,
            ttft=first - self._start if first else None,
            tpot=(last - first) / (count - 1) if first and last and count > 1 else None,
            total=time.perf_counter() - self._start,
        )


class Delivery:
    """What a request has produced, on its way from the worker's thread to its reader.

    It is an object of its own so that the worker does not keep the `Stream` alive. So a stream that
    is dropped midway (`for … in model.stream(…): break`) cancels its request at once, not at some
    garbage collection.
    """

    def __init__(self) -> None:
        self.out = Generation()
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.begun = False  # queued for the worker
        self.read = False  # the reader has seen the end
        self.worker: threading.Thread | None = None  # which must not wait for itself
        self._process = os.getpid()
        self._pieces: SimpleQueue[str | None] = SimpleQueue()  # None is the end
        self._texts: list[str] = []
        self._ended = threading.Event()

    @property
    def cancellation(self) -> Cancellation:
        return self.out.cancellation

    # ---- the reader's side

    @property
    def cancelled(self) -> bool:
        return self.cancellation.requested

    def cancel(self) -> None:
        """Stop within one operator of the vision tower or of a prefill, or within one token.

        From any thread; waits for nothing. On a GPU within one engine call, see `Engine`.
        """
        if not self.read:
            self.cancellation.request()

    def receive(self) -> str | None:
        """The next piece of text, or None at the end. Waits for it; raises like `wait`."""
        self._check_reader()
        piece = self._pieces.get()
        if piece is None:
            self.read = True
            self._pieces.put(None)  # for every other reader
        return piece

    def wait(self) -> None:
        """Wait for the end, without waking for every piece before it.

        Raises `PulseEdgeError` instead of waiting for ever: in the worker's own thread (a progress
        callback), and in a child process, which has no worker.
        """
        self._check_reader()
        self._ended.wait()

    def _check_reader(self) -> None:
        if threading.current_thread() is self.worker:
            raise PulseEdgeError(
                "a progress callback waits for the model that calls it; ask from another thread"
            )
        if self._process != os.getpid():
            raise PulseEdgeError(
                "this process was forked while the answer was under way; "
                "only the parent can read it"
            )

    # ---- the worker's side

    def serve(self, produce: Callable[[Delivery], Answer | None]) -> None:
        """Produce the answer, unless it was cancelled while it waited. Raises nothing."""
        try:
            if not self.cancelled:
                self.answer = produce(self)
        except BaseException as error:  # also KeyboardInterrupt: the reader raises it
            self.error = error
        finally:
            self._pieces.put(None)
            self._ended.set()

    def put(self, piece: str) -> None:
        """Hand a piece of text over. Never waits: an answer is bounded by `max_new_tokens`."""
        self._texts.append(piece)
        self._pieces.put(piece)

    @property
    def text(self) -> str:
        """What was produced so far, read or not."""
        return "".join(self._texts)

    def progress(self, told: Progress | None) -> Progress:
        """`told`, which also raises `Cancelled` once the request is."""

        def tell(stage: str, done: int, total: int) -> None:
            self.cancellation.check()
            if told:
                told(stage, done, total)
                self.cancellation.check()

        return tell


class Stream:
    """A lazy answer: nothing runs before it is read.

    Iterate for text, or take `.answer`. The model works ahead of the reader, who may be slow, pause
    or leave: other requests do not wait for a reader. A stream that is closed or dropped is
    cancelled within one token; before the first one, on a CPU in the midst of the vision tower or
    of a prefill chunk, on a GPU after the call that runs.
    """

    def __init__(self, request: Request, begin: Callable[[Delivery], None]) -> None:
        self.request = request
        self.delivery = Delivery()
        self._begin = begin
        self._text = ""

    @property
    def text(self) -> str:
        """What was received so far."""
        return self._text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next piece of text, as soon as it is certain. Raises what the request raises."""
        if self.delivery.cancelled:
            raise StopIteration
        piece = self._receive()
        if piece is None:
            self._raise_error()
            raise StopIteration
        return piece

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Cancel. From any thread, and without waiting; no effect once the end was read."""
        self.delivery.cancel()

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for it. A cancelled one has `finish_reason` "cancelled".

        Raises:
            PulseEdgeError: the stream was closed before the request's turn came, or has failed.
            Exception: whatever the request raises, with its type (see `Model.ask`), once.
        """
        if self.delivery.begun or not self.delivery.cancelled:
            self._wait(self.delivery.wait)
            while self._receive() is not None:
                pass
            self._raise_error()
        if self.delivery.answer is None:
            raise PulseEdgeError("this answer was closed before it began, or failed")
        return self.delivery.answer

    def _receive(self) -> str | None:
        piece = self._wait(self.delivery.receive)
        self._text += piece or ""
        return piece

    def _wait(self, wait: Callable[[], _T]) -> _T:
        """Begin the request and wait; close the stream if that is interrupted, as by Ctrl-C."""
        try:
            if not self.delivery.begun:
                self._begin(self.delivery)
            return wait()
        except BaseException:
            self.close()
            raise

    def _raise_error(self) -> None:
        error = self.delivery.error
        self.delivery.error = None
        if error is not None:
            raise error
