"""Whole requests, measured, again and again.

A repetition is a cold request (nothing known of the page), then a second question about the same
page (warm).
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from pulse_edge.answer import Answer
from pulse_edge.assets import RATE_QUESTION, REPORT_QUESTION
from pulse_edge.measure.contention import ContentionWatch
from pulse_edge.measure.energy import EnergyLog
from pulse_edge.measure.sweep import Settings
from pulse_edge.measure.warmup import is_stable, is_warm
from pulse_edge.model import Model
from pulse_edge.page.source import ImageSource
from pulse_edge.progress import Progress

QUESTIONS = (REPORT_QUESTION, RATE_QUESTION)  # of a cold request and of the warm one after it
Samples = dict[str, list[float]]  # by the name of a figure


class Streamed(NamedTuple):
    """One answer as a reader of its stream saw it.

    Attributes:
        answer: complete.
        gaps: seconds between pieces of text, which are one token each but for parts of characters.
        joules: of each meter at its start, at its first piece and at its end.
        seconds: from start to end.
    """

    answer: Answer
    gaps: list[float]
    joules: tuple[list[float], list[float], list[float]]
    seconds: float


class RequestRuns:
    """Requests of one model about one page, repeated.

    Attributes:
        samples: of each figure, by its name; those of repetitions that are complete.
        last: cold and warm answer of the last repetition; None before the first ended.
        warmup: seconds of the cold requests that were thrown away.
    """

    def __init__(
        self,
        model: Model,
        image: ImageSource,
        settings: Settings,
        watch: ContentionWatch,
        energy: EnergyLog,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing runs yet.

        Args:
            model: whose answers never end by themselves.
            image: the page.
            settings: how often, and how many tokens.
            watch: times its piece of work before each repetition.
            energy: gets every measured cold request.
            clock: seconds.
        """
        self.samples: Samples = defaultdict(list)
        self.last: tuple[Answer, Answer] | None = None
        self.warmup: list[float] = []
        self._model = model
        self._image = image
        self._settings = settings
        self._watch = watch
        self._energy = energy
        self._clock = clock

    @property
    def warmed(self) -> dict[str, Any]:
        """How the warm-up ended, JSON-ready."""
        return {"repetitions": len(self.warmup), "stable": is_stable(self.warmup)}

    def run(self, capacity: int, say: Progress) -> None:
        """Measure all repetitions.

        Args:
            capacity: of the engine's cache, which limits the new tokens.
            say: told after each repetition.
        """
        settings = self._settings
        first = self._model.ask(self._image, QUESTIONS[0], max_new_tokens=1)
        self.samples["ttft_first"].append(_with_token(first.timings.ttft))
        # The last token takes no place in the cache.
        count = min(settings.new_tokens, capacity - first.usage.prompt_tokens + 1)
        say("warm-up", 0, max(settings.warmup, 1))
        while not is_warm(self.warmup, settings.warmup, settings.warmup_limit):
            cold, _ = self._repetition(count)
            self.warmup.append(cold.answer.timings.total)
            say("warm-up", 1, max(settings.warmup, len(self.warmup)))
        for repetition in range(settings.repetitions):
            say("requests", int(repetition > 0), settings.repetitions)
            self._watch.measure_pace()
            self._keep(*self._repetition(count))

    def _repetition(self, count: int) -> tuple[Streamed, Answer]:
        self._model.forget()
        cold = self._stream(count)
        return cold, self._model.ask(self._image, QUESTIONS[1], max_new_tokens=1)

    def _stream(self, count: int) -> Streamed:
        """Ask the first question, and read its answer piece by piece."""
        begin = self._energy.read()
        start = self._clock()
        stream = self._model.stream(self._image, QUESTIONS[0], max_new_tokens=count)
        at: list[float] = []
        first = begin
        for _ in stream:
            at.append(self._clock())
            if len(at) == 1:
                first = self._energy.read()
        seconds = self._clock() - start
        gaps = [after - before for before, after in pairwise(at)]
        return Streamed(stream.answer, gaps, (begin, first, self._energy.read()), seconds)

    def _keep(self, cold: Streamed, warm: Answer) -> None:
        for name, values in cold_samples(cold.answer):
            self.samples[name].extend(values)
        self.samples["itl"].extend(cold.gaps)
        self.samples["ttft_warm"].append(_with_token(warm.timings.ttft))
        self.last = cold.answer, warm
        self._energy.add(*cold.joules, cold.answer.usage.new_tokens - 1, cold.seconds)


def cold_samples(answer: Answer) -> Iterator[tuple[str, Iterable[float]]]:
    """What one cold answer says about each figure. Its N tokens took N - 1 steps."""
    timings = answer.timings
    count = answer.usage.new_tokens
    assert len(timings.decode_steps) == count - 1, "an answer of fixed length ended early"
    ttft = _with_token(timings.ttft)
    tpot = (timings.total - ttft) / (count - 1)
    for stage in ("decode_image", "preprocess", "vision", "prefill"):
        yield stage, [getattr(timings, stage)]
    yield "vision_per_view", [timings.vision / answer.provenance["image"]["views"]]
    yield "decode_step", timings.decode_steps
    yield "sample", [timings.sample / count]
    yield "detokenise", [timings.detokenise / count]
    yield "outside_engine", [tpot - statistics.fmean(timings.decode_steps)]
    yield "ttft_cold", [ttft]
    yield "tpot", [tpot]
    yield "e2e", [timings.total]


def _with_token(measured: float | None) -> float:
    assert measured is not None, "a request without a token"
    return measured
