"""Timings of requests, exactly, by a clock that only work moves."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pulse_edge
from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.delivery import Delivery
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.page import preparation
from pulse_edge.page.source import PageInput, read_input

from support.requests import Q1, Q2, fresh, page
from support.ticking import (
    DECODE_IMAGE,
    DETOKENISE,
    PREFILL,
    PREPROCESS,
    SAMPLE,
    STEP,
    VISION,
    TickingEngine,
    WorkClock,
    take_time,
)

PREPARED = DECODE_IMAGE + PREPROCESS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WorkClock:
    clock = WorkClock()
    take_time(clock, monkeypatch)
    return clock


def ticking(bundle: Bundle, clock: WorkClock) -> pulse_edge.Model:
    engine: Any = TickingEngine(open_engine(bundle, EngineOptions(threads=1)), clock)
    return pulse_edge.Model(bundle, engine)


@pytest.fixture
def model(bundle: Path, clock: WorkClock) -> pulse_edge.Model:
    return ticking(open_bundle(bundle), clock)


def timed(
    model: pulse_edge.Model, clock: WorkClock, image: Any, **params: Any
) -> pulse_edge.Answer:
    stream = model.stream(image, Q1, **params)
    stream.delivery.out.clock = clock
    return stream.answer


@pytest.mark.parametrize("start", [0.0, 1024.0])
def test_a_greedy_request(model: pulse_edge.Model, clock: WorkClock, start: float) -> None:
    """Only the first token is sampled here; the engine chooses the others."""
    clock.add(start)
    t = timed(model, clock, page(), max_new_tokens=3).timings
    ttft = PREPARED + VISION + PREFILL + SAMPLE
    assert t == pulse_edge.Timings(
        decode_image=DECODE_IMAGE,
        preprocess=PREPROCESS,
        vision=VISION,
        prefill=PREFILL,
        decode_steps=(STEP, STEP),
        sample=SAMPLE,
        detokenise=3 * DETOKENISE,
        ttft=ttft,
        tpot=DETOKENISE + STEP,
        total=ttft + 2 * (DETOKENISE + STEP) + DETOKENISE,
    )


def test_a_sampled_request(model: pulse_edge.Model, clock: WorkClock) -> None:
    t = timed(model, clock, page(), max_new_tokens=4, temperature=1.0).timings
    ttft = PREPARED + VISION + PREFILL + SAMPLE
    assert (t.ttft, t.tpot) == (ttft, DETOKENISE + STEP + SAMPLE)
    assert (t.sample, t.detokenise) == (4 * SAMPLE, 4 * DETOKENISE)
    assert t.total == ttft + 3 * (DETOKENISE + STEP + SAMPLE) + DETOKENISE


def test_a_single_token(model: pulse_edge.Model, clock: WorkClock) -> None:
    t = timed(model, clock, page(), max_new_tokens=1).timings
    assert (t.tpot, t.decode_steps) == (None, ())
    assert t.ttft == PREPARED + VISION + PREFILL + SAMPLE == t.total - DETOKENISE


def test_a_known_page_takes_no_stage(model: pulse_edge.Model, clock: WorkClock) -> None:
    array = page()
    timed(model, clock, array, max_new_tokens=1)
    t = timed(model, clock, array, max_new_tokens=1).timings
    assert (t.decode_image, t.preprocess, t.vision) == (DECODE_IMAGE, 0, 0)
    assert t.ttft == DECODE_IMAGE + PREFILL + SAMPLE
    t = timed(model, clock, None, max_new_tokens=1).timings
    assert (t.decode_image, t.preprocess, t.vision, t.prefill) == (0, 0, 0, PREFILL)
    assert t.ttft == PREFILL + SAMPLE


def test_the_end_token_counts_as_a_token_in_time(bundle: Path, clock: WorkClock) -> None:
    """Its step was run, though it is not part of the answer."""
    known = fresh(bundle, None, Q1, max_new_tokens=20).token_ids
    at = next(i for i, token in enumerate(known) if i >= 3 and token not in known[:i])
    opened = open_bundle(bundle)
    spec = opened.manifest.model
    spec = dataclasses.replace(spec, text=dataclasses.replace(spec.text, eos=(-5, known[at])))
    opened = Bundle(opened.path, dataclasses.replace(opened.manifest, model=spec))
    answer = timed(ticking(opened, clock), clock, None)
    t = answer.timings
    assert (answer.finish_reason, answer.token_ids) == ("eos", known[:at])
    assert t.decode_steps == (STEP,) * at
    assert t.tpot == DETOKENISE + STEP
    assert t.total == PREFILL + SAMPLE + at * (DETOKENISE + STEP)


def test_waits_for_others_do_not_count(
    bundle: Path, clock: WorkClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the wait for a place to decode in, nor that for the turn."""
    model = ticking(open_bundle(bundle), clock)
    working, resume = threading.Event(), threading.Event()
    monkeypatch.setattr(preparation, "decoding_places", lambda _: SlowPlaces(clock))

    def hold(*_: object) -> None:
        working.set()
        assert resume.wait(60)

    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(model.run_on_engine, hold)
        assert working.wait(60)
        stream = model.stream(page(), Q1, max_new_tokens=1)
        stream.delivery.out.clock = clock
        answer = pool.submit(lambda: stream.answer)
        while stream.delivery not in model.worker.unfinished:
            working.wait(0.001)
        clock.add(4096)
        resume.set()
        other.result(60)
        t = answer.result(60).timings
    assert t.ttft == PREPARED + VISION + PREFILL + SAMPLE
    assert t.total == t.ttft + DETOKENISE
    assert t.queued >= 4096


class SlowPlaces:
    """Gives a place after a long time."""

    def __init__(self, clock: WorkClock) -> None:
        self.clock = clock

    def get(self, timeout: float) -> None:
        self.clock.add(512)

    def put(self, _: None) -> None:
        pass


def test_reading_the_file_does_not_count(
    model: pulse_edge.Model, clock: WorkClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "read_input", clock.taking(512, read_input))
    t = timed(model, clock, page(), max_new_tokens=1).timings
    assert clock.now > 512
    assert t.ttft == PREPARED + VISION + PREFILL + SAMPLE


def test_the_digest_of_a_file_counts(
    model: pulse_edge.Model, clock: WorkClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PageInput, "data_sha256", property(clock.taking(512, lambda _: "ab" * 32)))
    t = timed(model, clock, page(), max_new_tokens=1).timings
    assert (t.decode_image, t.ttft) == (DECODE_IMAGE, 512 + PREPARED + VISION + PREFILL + SAMPLE)


def test_a_request_that_was_cancelled_midway(bundle: Path, clock: WorkClock) -> None:
    """What it did is told, and `ttft` only if there was a token."""
    stream: pulse_edge.Stream

    def close(stage: str, done: int, total: int) -> None:
        if stage == "prefill":
            stream.close()

    opened = open_bundle(bundle)
    engine: Any = TickingEngine(open_engine(opened, EngineOptions(threads=1)), clock)
    model = pulse_edge.Model(opened, engine, close)
    stream = model.stream(page(), Q1)
    stream.delivery.out.clock = clock
    t = stream.answer.timings
    # Five views, one by one, because somebody is told of each.
    assert (t.ttft, t.tpot, t.vision, t.prefill) == (None, None, 5 * VISION, PREFILL)
    assert t.total == PREPARED + 5 * VISION + PREFILL


def test_speculation_counts_steps(model: pulse_edge.Model, clock: WorkClock) -> None:
    for _ in range(2):
        answer = timed(model, clock, None, max_new_tokens=30, speculate=True)
    t = answer.timings
    assert len(t.decode_steps) == 29 - answer.usage.accepted_tokens < 29
    assert t.tpot is not None
    assert t.tpot * 29 == sum(t.decode_steps) + 29 * DETOKENISE


def test_the_clock_is_the_machine_s_by_default(model: pulse_edge.Model) -> None:
    import time

    assert Delivery(threading.current_thread()).out.clock is time.perf_counter
    before = time.perf_counter()
    answer = model.ask(None, Q2, max_new_tokens=3)
    taken = time.perf_counter() - before
    assert answer.timings.ttft is not None
    assert 0 < answer.timings.ttft < answer.timings.total < taken
