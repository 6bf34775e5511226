"""Requests that join, are cancelled and end at random moments, in one thread and by a seed."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pulse_edge
from pulse_edge.answer import Answer, Stopwatch
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.decode.lanes import Lanes
from pulse_edge.delivery import Delivery
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.job import Job
from pulse_edge.runner import Runner
from pulse_edge.text.tokenizer import Tokenizer

from support.requests import Q1, Q2, page, prepared

KEPT = 1 << 20  # bytes; some pages of the tiny model


class Schedules:
    """Runs schedules over one engine with several slots, against answers of one with a single slot.

    A schedule is a list of requests, each with the moment at which it joins and perhaps one at
    which it is cancelled. A moment is a number of common steps. Between two pieces of a prefill
    the other requests take a step, too.

    Args:
        path: a bundle.
        slots: of the engine.
        tie: difference of log-probabilities up to which two tokens count as equal. 0 compares
            answers as they are.
    """

    def __init__(self, path: Path, slots: int, tie: float = 0.0) -> None:
        bundle = open_bundle(path)
        self._model = pulse_edge.load(path, threads=1)
        self._spec = bundle.manifest.model
        self._images: list[Any] = [None, page(), page(1), page(2)]
        self._prepared = [None, *(prepared(image, self._spec) for image in self._images[1:])]
        engine = open_engine(bundle, EngineOptions(threads=1, slots=slots))
        self.lanes = Lanes(engine, KEPT)
        tokenizer = self._model.tokenizer
        assert isinstance(tokenizer, Tokenizer)
        self.runner = Runner(
            bundle, engine, tokenizer, None, {}, (), self.lanes, lambda: False, self._step
        )
        self._slots = slots
        self._tie = tie
        self._running: list[Delivery] = []
        self._known: dict[tuple[Any, ...], Answer] = {}
        self.shared = 0  # steps that were run in company
        self.together = 0  # most requests that decoded at a time

    def run(self, seed: int) -> None:
        """One schedule. Raises `AssertionError` if an answer is not that of its request alone."""
        rng = random.Random(seed)
        requests = [self._draw(rng) for _ in range(rng.randrange(2, 2 + self._slots))]
        joins = sorted(rng.randrange(8) for _ in requests)
        cancels = [rng.randrange(1, 20) if rng.random() < 0.2 else None for _ in requests]
        deliveries: list[Delivery] = []
        moment = 0
        while len(deliveries) < len(requests) or self._running:
            due = len(deliveries) < len(requests) and joins[len(deliveries)] <= moment
            if due and len(self._running) < self._slots:
                deliveries.append(self._join(requests[len(deliveries)]))
            for delivery, at in zip(deliveries, cancels, strict=False):
                if at == moment and not delivery.ended:
                    delivery.cancel()
            self._step()
            moment += 1
        for request, delivery, at in zip(requests, deliveries, cancels, strict=True):
            self._check(request, delivery, at is not None)
        assert self.lanes.busy == 0

    def _draw(self, rng: random.Random) -> tuple[Any, ...]:
        samples = rng.random() < 0.3 and not self._tie
        sampled = {"temperature": 0.8, "seed": rng.randrange(3)} if samples else {}
        more = {"logprobs": 2} if rng.random() < 0.1 else {}
        params = {"max_new_tokens": rng.choice((1, 6, 9, 14)), **sampled, **more}
        return rng.randrange(4), rng.choice((Q1, Q2)), tuple(sorted(params.items()))

    def _join(self, request: tuple[Any, ...]) -> Delivery:
        image, question, params = request
        stream = self._model.stream(self._images[image], question, **dict(params))
        delivery = Delivery(threading.current_thread())
        run = Job(stream.request, Stopwatch(delivery.out.clock))
        self.runner.predict(run, self._prepared[image])
        delivery.enqueue(
            lambda own: self.runner.answer(run, self._prepared[image], own),
            threading.current_thread(),
            set(),
        )
        assert delivery.take_turn()
        if delivery.run():
            delivery.end()
        else:
            self._running.append(delivery)
        self.together = max(self.together, len(self._running))
        return delivery

    def _step(self) -> None:
        self.lanes.share()
        for delivery in self._running[:]:
            if delivery.run():
                self._running.remove(delivery)
                delivery.end()
                self.shared += delivery.out.shared_steps

    def _check(self, request: tuple[Any, ...], delivery: Delivery, cancelled: bool) -> None:
        error = delivery.take_error()
        assert error is None, error
        assert delivery.answer is not None
        expected = self._alone(request)
        got = delivery.answer
        cut = cancelled and got.finish_reason == "cancelled"
        tokens = expected.token_ids[: len(got.token_ids)] if cut else expected.token_ids
        if got.token_ids != tokens and self._tie:
            assert self._is_tie(got, expected), request
        else:
            assert got.token_ids == tokens, request
            assert cut or got.text == expected.text

    def _is_tie(self, got: Answer, expected: Answer) -> bool:
        """Whether the first token that differs was almost as likely as the other one."""
        pairs = zip(got.token_ids, expected.token_ids, strict=False)
        at = next(i for i, (one, other) in enumerate(pairs) if one != other)
        assert expected.logprobs is not None
        chosen = expected.logprobs[at]
        top = {each.token: each.logprob for each in chosen.top}
        return chosen.logprob - top[got.token_ids[at]] < self._tie

    def _alone(self, request: tuple[Any, ...]) -> Answer:
        if request not in self._known:
            image, question, params = request
            self._model.forget()
            named = dict(params) | ({"logprobs": 5} if self._tie else {})
            self._known[request] = self._model.ask(self._images[image], question, **named)
        return self._known[request]
