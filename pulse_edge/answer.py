"""Requests and answers. docs/answer.schema.json is the JSON schema of an `Answer`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.deadline import DeadlineReport
from pulse_edge.decode.logprobs import TokenLogprob
from pulse_edge.decode.result import FinishReason, Generation
from pulse_edge.page.check import PageCheck
from pulse_edge.page.preparation import PendingPage
from pulse_edge.params import GenerationParams, Terms

STAGES = ("decode_image", "preprocess", "vision", "prefill")


@dataclass(frozen=True)
class Request:
    """A prompt ready to run."""

    ids: tuple[int, ...]  # of the conversation, with `text.template.IMAGE` in the image's place
    prompt: str  # the same as text, for provenance
    page: PendingPage | None
    params: GenerationParams
    terms: Terms = field(default_factory=Terms)
    generates: bool = True  # False: only the page is prefilled
    known: Mapping[str, float] = field(default_factory=dict)  # values in the prompt, as given


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
    """Wall-clock seconds of work. Stages that were not needed (the page is known already) are 0.

    `ttft` and `total` count the page's preparation and then everything from the request's turn on.
    They leave out the waits for other requests, which are `queued`, and reading the file.

    Args:
        queued: seconds that the request waited for others.
        decode_image: image file to RGB pixels.
        preprocess: pixels to normalised views.
        vision: views to features.
        prefill: the part of the prompt that was not in the KV cache.
        decode_steps: engine time of each step after the first token. With `speculate`, one step may
            give several tokens.
        sample: logits to tokens, in all.
        detokenise: tokens to text, in all.
        ttft: seconds up to the first token; None without one.
        tpot: (last token - first token) / (tokens - 1); None below two tokens.
        total: seconds up to the end.
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
    queued: float = 0.0


@dataclass(frozen=True)
class Answer:
    """A finished (or cancelled) answer.

    Args:
        text: stripped of white space at both ends, without the stop string.
        token_ids: generated, without the end token.
        finish_reason: `eos`, `stop` (a stop string), `length` (`max_new_tokens`), `context` (the
            cache is full), `deadline` (time was up) or `cancelled`.
        usage: token counts.
        timings: seconds.
        provenance: what produced it, JSON-ready.
        deadline: what became of the request's deadline; None if it had none.
        logprobs: of each of `token_ids`; None without `GenerationParams.logprobs`.
        notice: that it is for research only.
        checks: of the page, by `page/preflight.py`; none without a page.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    provenance: dict[str, Any]
    deadline: DeadlineReport | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    notice: str = NOTICE
    checks: tuple[PageCheck, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dataclasses.asdict(self)


class Stopwatch:
    """Seconds of a request: of its stages, and of all but its waits for other requests.

    Args:
        clock: seconds since any moment; the one that `Generation.clock` is.

    Attributes:
        reached: the stages that have begun, in order.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._stages = dict.fromkeys(STAGES, 0.0)
        self._created = clock()
        self._worked = 0.0  # seconds of work before this turn
        self._turn: float | None = None  # when it began
        self._aside = 0.0  # seconds within stages that are none of theirs
        self.reached: list[str] = []

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Count the body as work, before the request's turn."""
        start = self._clock()
        try:
            yield
        finally:
            self._worked += self._clock() - start

    def begin_turn(self) -> None:
        """Count everything from now on."""
        self._turn = self._clock()

    def end_turn(self) -> None:
        """Count nothing until the next turn."""
        if self._turn is not None:
            self._worked += self._clock() - self._turn
        self._turn = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to one of `STAGES`."""
        if name not in self.reached:
            self.reached.append(name)
        start = self._clock() - self._aside
        try:
            yield
        finally:
            self._stages[name] += self._clock() - self._aside - start

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Count the body to no stage: it is other requests' work."""
        start = self._clock()
        try:
            yield
        finally:
            self._aside += self._clock() - start

    def timings(self, out: Generation) -> Timings:
        """The timings of a request that ends now.

        Args:
            out: what its decode loop did, by the same clock.
        """
        now = self._clock()
        start = (now if self._turn is None else self._turn) - self._worked
        first = out.first_token_at
        last = out.last_token_at
        count = len(out.tokens) + (out.finish_reason == "eos")
        tpot = None
        if first is not None and last is not None and count > 1:
            tpot = (last - first) / (count - 1)
        return Timings(
            **self._stages,
            decode_steps=tuple(out.step_seconds),
            sample=out.sample_seconds,
            detokenise=out.detokenise_seconds,
            ttft=None if first is None else first - start,
            tpot=tpot,
            total=now - start,
            queued=max(0.0, start - self._created),
        )
