"""The model's own thread: readers hold nobody up, and nothing hangs when they leave."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.delivery import Delivery
from pulse_edge.errors import PulseEdgeError

from support.process import run
from support.requests import LONG, Q1, Q2, fresh, page, usable

PATIENCE = 60  # seconds


class Gate:
    """Holds the worker at a request's third piece of text."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self.pieces: Counter[Delivery] = Counter()
        put = Delivery.put

        def waits(delivery: Delivery, piece: str) -> None:
            put(delivery, piece)
            self.pieces[delivery] += 1
            if self.pieces[delivery] == 3:
                self.reached.set()
                assert self.open.wait(PATIENCE)

        patch.setattr(Delivery, "put", waits)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


# --- readers -------------------------------------------------------------------------------------


def test_a_slow_reader_blocks_no_other_thread(bundle: Path, model: pulse_edge.Model) -> None:
    """Three threads are answered between two pieces of a stream."""
    whole = fresh(bundle, page(), Q1)
    stream = model.stream(page(), Q1, max_new_tokens=40)
    pieces = [next(stream)]
    with ThreadPoolExecutor(3) as pool:
        images = [page(i) for i in range(3)]
        answers = pool.map(lambda image: model.ask(image, Q2, max_new_tokens=40), images)
        for image, answer in zip(images, answers, strict=True):
            assert answer.token_ids == fresh(bundle, image, Q2).token_ids
    pieces += stream
    assert "".join(pieces) == stream.text == stream.answer.text == whole.text


def test_streams_that_are_begun_and_kept(bundle: Path, model: pulse_edge.Model) -> None:
    """Each is answered whole, whenever it is read."""
    streams = [model.stream(page(i), Q1, max_new_tokens=40) for i in range(3)]
    first = [next(stream) for stream in streams]
    assert usable(model, bundle)
    for i, stream in reversed([*enumerate(streams)]):
        assert first[i] + "".join(stream) == fresh(bundle, page(i), Q1).text


def test_a_dropped_stream_is_cancelled(bundle: Path, model: pulse_edge.Model, gate: Gate) -> None:
    """Without the garbage collector."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    next(stream)
    assert gate.reached.wait(PATIENCE)
    delivery = stream.delivery
    gc.disable()
    try:
        del stream
        assert delivery.cancelled
    finally:
        gc.enable()
    gate.open.set()
    assert usable(model, bundle)
    assert delivery.answer is not None
    assert delivery.answer.finish_reason == "cancelled"
    assert delivery.answer.text == delivery.text
    assert len(delivery.answer.token_ids) < 10


def test_a_stream_in_a_cycle_is_cancelled_when_it_is_collected(
    bundle: Path, model: pulse_edge.Model, gate: Gate
) -> None:
    stream: Any = model.stream(page(), Q1, max_new_tokens=LONG)
    next(stream)
    delivery, stream.itself = stream.delivery, stream
    del stream
    gc.collect()
    assert delivery.cancelled
    gate.open.set()
    assert usable(model, bundle)


# --- cancelling ----------------------------------------------------------------------------------


def closing_at(bundle: Path, stage: str, calls: int) -> tuple[pulse_edge.Stream, list[str]]:
    """A stream that is closed at the progress call of that number; what the calls were."""
    seen: list[str] = []

    def progress(name: str, done: int, total: int) -> None:
        seen.append(name)
        if seen.count(stage) == calls:
            stream.close()

    model = pulse_edge.load(bundle, threads=1, prefill_chunk=16, progress=progress)
    seen.clear()
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    assert list(stream) == []
    assert stream.answer.finish_reason == "cancelled"
    assert stream.answer.token_ids == ()
    assert stream.answer.timings.ttft is None
    told = list(seen)
    assert usable(model, bundle)
    return stream, told


def test_cancelled_before_the_vision_tower(bundle: Path) -> None:
    stream, told = closing_at(bundle, "vision", 1)
    assert told == ["vision"]
    assert (stream.answer.usage.image_tokens, stream.answer.usage.new_tokens) == (80, 0)
    assert stream.answer.timings.vision < 0.1


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_cancelled_between_chunks_of_a_prefill(bundle: Path, calls: int) -> None:
    stream, told = closing_at(bundle, "prefill", calls)
    assert set(told[:-calls]) == {"vision"}
    assert told[-calls:] == ["prefill"] * calls
    assert stream.answer.usage.image_tokens == 80
    assert stream.answer.usage.prompt_tokens > 80


def test_cancelled_while_decoding(bundle: Path, model: pulse_edge.Model, gate: Gate) -> None:
    """Nothing runs after the token at which it was cancelled."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    next(stream)
    assert gate.reached.wait(PATIENCE)
    known = len(stream.delivery.out.tokens)
    stream.close()
    gate.open.set()
    assert stream.answer.token_ids == fresh(bundle, page(), Q1).token_ids[:known]
    assert stream.answer.text == stream.text
    assert len(stream.answer.timings.decode_steps) == known - 1
    assert model.engine.length == stream.answer.usage.prompt_tokens + known - 1
    assert usable(model, bundle)


def test_cancelled_while_it_waits_for_its_turn(
    bundle: Path, model: pulse_edge.Model, gate: Gate
) -> None:
    first = model.stream(page(), Q1, max_new_tokens=40)
    next(first)
    second = model.stream(page(1), Q1, max_new_tokens=40)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: list(second))
        while not second.delivery.begun:
            assert gate.reached.wait(PATIENCE)
        second.close()
        gate.open.set()
        assert reading.result(PATIENCE) == []
    with pytest.raises(PulseEdgeError, match="closed before it began"):
        _ = second.answer
    assert first.answer.token_ids == fresh(bundle, page(), Q1).token_ids


def test_ctrl_c_while_waiting_for_text(bundle: Path, model: pulse_edge.Model, gate: Gate) -> None:
    """It interrupts the reader's wait, and cancels the request."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(stream)
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    gate.open.set()
    assert stream.answer.finish_reason == "cancelled"
    assert usable(model, bundle)


# --- errors --------------------------------------------------------------------------------------


class OddError(Exception):
    """Not one of ours."""


@pytest.mark.parametrize("stage", ["encode", "rows", "prefill", "choose"])
def test_errors_reach_the_reader_with_their_type(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OddError(stage)

    model.ask(page(), Q1, max_new_tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(model.engine, stage, fails)
        stream = model.stream(page(3), Q1)
        with pytest.raises(OddError, match=stage):
            list(stream)
    assert list(stream) == []
    with pytest.raises(PulseEdgeError, match="or failed"):
        _ = stream.answer
    assert usable(model, bundle)


def test_a_progress_callback_that_fails(bundle: Path) -> None:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "prefill" and failing:
            raise OddError

    failing = True
    model = pulse_edge.load(bundle, threads=1, progress=progress)
    with pytest.raises(OddError):
        model.ask(page(), Q1)
    failing = False
    assert usable(model, bundle)


def test_a_progress_callback_cannot_ask_its_own_model(bundle: Path) -> None:
    """It would wait for itself."""
    errors: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "vision":
            with pytest.raises(PulseEdgeError) as caught:
                model.ask(None, Q2)
            errors.append(str(caught.value))

    model = pulse_edge.load(bundle, threads=1, progress=progress)
    assert model.ask(page(), Q1, max_new_tokens=9).finish_reason == "length"
    assert errors
    assert all("progress callback" in error for error in errors)


# --- the thread ----------------------------------------------------------------------------------


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "pulse-edge engine"}


def test_the_thread_comes_with_the_first_request_and_goes_with_the_model(bundle: Path) -> None:
    before = engine_threads()
    model = pulse_edge.load(bundle, threads=1)
    stream = model.stream(page(), Q1, max_new_tokens=40)
    assert engine_threads() <= before
    next(stream)
    (thread,) = engine_threads() - before
    del model
    assert stream.answer.token_ids == fresh(bundle, page(), Q1).token_ids
    del stream
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_model_is_freed_without_the_garbage_collector(bundle: Path) -> None:
    model = pulse_edge.load(bundle, threads=1)
    model.ask(page(), Q1, max_new_tokens=5)
    known = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert known() is None
    finally:
        gc.enable()


def test_forget_waits_its_turn(bundle: Path, model: pulse_edge.Model) -> None:
    stream = model.stream(page(), Q1, max_new_tokens=40)
    next(stream)
    model.forget()
    assert model.engine.length == 0
    assert stream.answer.token_ids == fresh(bundle, page(), Q1).token_ids


EXIT = """
import sys, time, numpy, pulse_edge
model = pulse_edge.load(sys.argv[1], threads=1)
array = numpy.random.default_rng(0).integers(0, 256, (110, 150, 3), "uint8")
streams = [model.stream(array, "What is the rate?", max_new_tokens=10_000) for _ in range(3)]
for stream in streams[:int(sys.argv[2])]:
    next(stream)
print("read", flush=True)
if sys.argv[3] == "raise":
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("begun", "how"), [("0", "end"), ("1", "end"), ("3", "end"), ("1", "raise")]
)
def test_exit_with_unread_streams(bundle: Path, begun: str, how: str) -> None:
    done = run(EXIT, bundle, begun, how)
    assert (done.stdout, done.stderr) == ("read\n", "")
    assert done.returncode == (3 if how == "raise" else 0)


FORK = """
import os, sys, numpy, pulse_edge
model = pulse_edge.load(sys.argv[1], threads=int(sys.argv[3]))
ask = lambda: model.ask(numpy.zeros((50, 60), "uint8"), "What is the rate?", max_new_tokens=9).text
stream = model.stream(None, "What is the rhythm?", max_new_tokens=50)
if sys.argv[2] == "after":
    text = ask()
    next(stream)
if (child := os.fork()) == 0:
    try:
        text = ask()
    except pulse_edge.PulseEdgeError as error:
        print(error, flush=True)
        try:
            list(stream)
        except pulse_edge.PulseEdgeError as error:
            print(error, flush=True)
    else:
        print("answered", flush=True)
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert sys.argv[2] == "before" or ask() == text
print(len(stream.answer.token_ids))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fork_after_a_request(bundle: Path, threads: str) -> None:
    """The child is told what to do; the parent goes on."""
    done = run(FORK, bundle, "after", threads)
    assert done.stderr == ""
    asked, read, tokens = done.stdout.splitlines()
    assert "forked from one whose model has answered already; load the model in the child" in asked
    assert "only the parent can read it" in read
    assert tokens == "50"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_before_any_request(bundle: Path) -> None:
    """The child starts a worker of its own."""
    done = run(FORK, bundle, "before", "1")
    assert (done.stdout, done.stderr) == ("answered\n50\n", "")


def test_many_threads_and_readers_of_all_kinds(bundle: Path, model: pulse_edge.Model) -> None:
    """Some read, some leave, some only begin: every answer that is read is right."""
    expected = [fresh(bundle, page(i), Q1, max_new_tokens=20).token_ids for i in range(3)]
    kept: list[pulse_edge.Stream] = []

    def one(number: int) -> tuple[int, ...]:
        image: np.ndarray = page(number % 3)
        stream = model.stream(image, Q1, max_new_tokens=20)
        if number % 4 == 1:
            next(stream)
            kept.append(stream)
        elif number % 4 == 2:
            next(stream)
            stream.close()
        elif number % 4 == 3:
            next(iter(model.stream(image, Q2, max_new_tokens=LONG)))
        return model.ask(image, Q1, max_new_tokens=20).token_ids

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(24))) == [expected[i % 3] for i in range(24)]
    assert all(stream.answer.token_ids in expected for stream in kept)


def test_a_stream_outlives_its_model(bundle: Path) -> None:
    """Nobody holds the model any more when its request ends; a late reader gets the whole text."""
    stream = pulse_edge.load(bundle, threads=1).stream(page(), Q1, max_new_tokens=12)
    first = next(stream)
    stream.delivery.wait()
    stream.delivery.worker.join(30)
    assert not stream.delivery.worker.is_alive()
    assert first + "".join(stream) == stream.answer.text
    assert len(stream.answer.token_ids) == 12
