"""The wait for a turn: how long a request waits, how it leaves the queue, and who may wait."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.delivery import Delivery
from pulse_edge.engines.engine import Engine
from pulse_edge.errors import EngineError, ParameterError, PulseEdgeError, QueueTimeoutError
from pulse_edge.page import preparation
from pulse_edge.page.views import preprocess
from pulse_edge.params import Patience

from support.requests import LONG, Q1, Q2, fresh, page, settled, usable

PATIENCE = 60  # seconds
SHORT = 0.02


class Busy:
    """Keeps a model busy until it is told to stop."""

    def __init__(self, model: pulse_edge.Model, pool: ThreadPoolExecutor) -> None:
        working = threading.Event()
        self._stop = threading.Event()

        def work(*_: object) -> None:
            working.set()
            assert self._stop.wait(PATIENCE)

        self._work = pool.submit(model.run_on_engine, work)
        assert working.wait(PATIENCE)

    def end(self) -> None:
        self._stop.set()
        self._work.result(PATIENCE)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def busy(model: pulse_edge.Model, pool: ThreadPoolExecutor) -> Iterator[Busy]:
    busy = Busy(model, pool)
    yield busy
    busy.end()


def queued(model: pulse_edge.Model, count: int) -> None:
    """Wait until so many requests have begun and not ended."""
    pause = threading.Event()
    while len(model.worker.unfinished) < count:
        pause.wait(0.001)


WAYS: dict[str, Callable[[pulse_edge.Model, float | None], object]] = {
    "ask": lambda model, timeout: model.ask(page(), Q1, timeout=timeout, max_new_tokens=3),
    "text": lambda model, timeout: model.ask(None, Q1, timeout=timeout, max_new_tokens=3),
    "answer": lambda model, timeout: model.stream(page(), Q1, timeout=timeout).answer,
    "next": lambda model, timeout: next(model.stream(page(), Q1, timeout=timeout)),
    "list": lambda model, timeout: list(model.stream(page(), Q1, timeout=timeout)),
    "chat": lambda model, timeout: model.chat(page()).ask(Q1, timeout=timeout, max_new_tokens=3),
    "chat stream": lambda model, timeout: next(model.chat(None).stream(Q1, timeout=timeout)),
}


# --- timeouts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, SHORT])
@pytest.mark.parametrize("way", WAYS)
def test_a_turn_that_does_not_come_in_time(
    bundle: Path, model: pulse_edge.Model, busy: Busy, way: str, timeout: float
) -> None:
    with pytest.raises(QueueTimeoutError) as caught:
        WAYS[way](model, timeout)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, PulseEdgeError)
    reason = "busy with another request" if timeout == 0 else "timeout of 0.02 s"
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()
    busy.end()
    assert usable(model, bundle)


@pytest.mark.parametrize("timeout", [0, SHORT, 3600, math.inf, None])
@pytest.mark.parametrize("way", WAYS)
def test_an_idle_model_answers_whatever_the_timeout(
    model: pulse_edge.Model, way: str, timeout: float | None
) -> None:
    assert WAYS[way](model, timeout)


def test_no_timeout_is_too_short_for_an_idle_model(model: pulse_edge.Model) -> None:
    """Also right after another request, of which the model's thread still tidies up."""
    for i in range(100):
        model.ask(None, Q1, timeout=0, max_new_tokens=1 + i % 2)
        assert list(model.stream(None, Q1, timeout=0, max_new_tokens=1)) is not None
        model.forget()


def test_a_timeout_does_not_bound_the_answer(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Delivery.put
    pause = threading.Event()

    def slow(delivery: Delivery, piece: str) -> None:
        pause.wait(0.005)
        put(delivery, piece)

    monkeypatch.setattr(Delivery, "put", slow)
    answer = model.ask(page(), Q1, timeout=SHORT, max_new_tokens=40)
    assert answer.token_ids == fresh(bundle, page(), Q1).token_ids


@pytest.mark.parametrize("timeout", [PATIENCE, math.inf, None])
def test_a_turn_that_comes_in_time(
    bundle: Path,
    model: pulse_edge.Model,
    busy: Busy,
    pool: ThreadPoolExecutor,
    timeout: float | None,
) -> None:
    waiting = pool.submit(model.ask, page(), Q1, timeout=timeout, max_new_tokens=40)
    queued(model, 2)
    assert not waiting.done()
    busy.end()
    assert waiting.result(PATIENCE).token_ids == fresh(bundle, page(), Q1).token_ids


def test_the_order_is_kept_when_one_leaves(
    bundle: Path, model: pulse_edge.Model, busy: Busy, pool: ThreadPoolExecutor
) -> None:
    ended: list[int] = []
    waiting: list[Future[None]] = []

    def ask(number: int) -> None:
        model.ask(page(number), Q1, max_new_tokens=3)
        ended.append(number)

    for number in range(3):
        waiting.append(pool.submit(ask, number))
        queued(model, 2 + number)
        with pytest.raises(QueueTimeoutError):
            model.ask(page(), Q2, timeout=0)
    busy.end()
    for each in waiting:
        each.result(PATIENCE)
    assert ended == [0, 1, 2]
    assert usable(model, bundle)


def test_a_withdrawn_request_runs_nothing_and_holds_nothing(
    model: pulse_edge.Model, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    views: list[weakref.ref[Any]] = []

    def watched(*arguments: Any) -> Any:
        pixels = preprocess(*arguments)
        views.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(preparation, "preprocess", watched)
    monkeypatch.delattr(model.engine.__class__, "encode")
    streams = [model.stream(page(i), Q1, timeout=0) for i in range(5)]
    gc.disable()
    try:
        for stream in streams:
            with pytest.raises(QueueTimeoutError):
                next(stream)
        assert [view() for view in views] == [None] * 5
    finally:
        gc.enable()
    busy.end()
    assert settled(model.worker)
    model.forget()  # the worker has passed them
    for stream in streams:
        assert list(stream) == []
        with pytest.raises(PulseEdgeError, match="or failed"):
            _ = stream.answer


def test_a_turn_of_a_chat_that_timed_out_is_not_part_of_it(
    bundle: Path, model: pulse_edge.Model, pool: ThreadPoolExecutor
) -> None:
    chat = model.chat(page())
    first = chat.stream(Q1, max_new_tokens=5)
    known = [*first.request.ids, *first.answer.token_ids]
    busy = Busy(model, pool)
    for timeout in (0, SHORT):
        with pytest.raises(QueueTimeoutError):
            chat.ask("And the axis?", timeout=timeout)
    busy.end()
    second = chat.stream(Q2, max_new_tokens=5)
    assert len(second.answer.token_ids) == 5
    assert list(second.request.ids[: len(known)]) == known
    assert "axis" not in second.request.prompt


def test_many_that_ask_only_an_idle_model(
    bundle: Path, model: pulse_edge.Model, pool: ThreadPoolExecutor
) -> None:
    """Of all that ask at once, some are answered, and the others leave nothing behind."""
    expected = fresh(bundle, None, Q1, max_new_tokens=5).token_ids
    barrier = threading.Barrier(8)

    def ask(_: int) -> int:
        barrier.wait()
        answered = 0
        for _ in range(25):
            try:
                answer = model.ask(None, Q1, timeout=0, max_new_tokens=5)
            except QueueTimeoutError:
                continue
            assert answer.token_ids == expected
            answered += 1
        return answered

    answered = sum(pool.map(ask, range(8)))
    assert 1 <= answered <= 200
    assert settled(model.worker)


# --- legal values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timeout",
    [
        *(-1, -1e-9, -0.5, math.nan, -math.inf, True, False, "1", "", b"1", [], [1], 1j, object()),
        *(np.float32(math.nan), np.float64(-1), np.int8(-1), np.bool_(True), np.array([1.0]), {}),
    ],
)
def test_timeouts_that_there_are_not(model: pulse_edge.Model, timeout: Any) -> None:
    """They are refused at once, before the image is read."""
    for call in (
        lambda: model.ask("nowhere.png", Q1, timeout=timeout),
        lambda: model.stream("nowhere.png", Q1, timeout=timeout),
        lambda: model.chat(None).ask(Q1, timeout=timeout),
        lambda: model.chat(None).stream(Q1, timeout=timeout),
    ):
        with pytest.raises(ParameterError, match=r"^timeout is .*, but must be seconds from 0"):
            call()


@pytest.mark.parametrize(
    "timeout", [0, 0.0, -0.0, 1, 1e-300, 1e300, math.inf, np.float32(1), np.int64(0), None]
)
def test_timeouts_that_there_are(model: pulse_edge.Model, timeout: Any) -> None:
    assert model.ask(None, Q1, timeout=timeout, max_new_tokens=1).usage.new_tokens == 1
    assert "timeout" not in model.ask(None, Q1, max_new_tokens=1).provenance["parameters"]


def test_several_waits_use_up_one_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    patience = Patience(10)
    left: list[float | None] = []

    def wait(seconds: float, enough: bool) -> Callable[[float | None], bool]:
        def for_seconds(most: float | None) -> bool:
            left.append(most)
            now[0] += seconds
            return enough

        return for_seconds

    assert patience.wait(wait(4, True))
    now[0] += 1000  # own work
    assert patience.wait(wait(5, True))
    assert not patience.wait(wait(2, False))
    assert not patience.wait(wait(1, False))
    assert left == [10, 6, 1, 0]
    assert "timeout of 10 s" in str(patience.exhausted())
    assert Patience(None).wait(lambda seconds: seconds is None)
    assert Patience(math.inf).wait(lambda seconds: seconds == threading.TIMEOUT_MAX)


# --- leaving -------------------------------------------------------------------------------------


def test_a_waiting_stream_that_is_closed_ends_at_once(
    model: pulse_edge.Model, busy: Busy, pool: ThreadPoolExecutor
) -> None:
    """Its readers do not wait for its turn."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    readers = [pool.submit(lambda: list(stream)) for _ in range(3)]
    queued(model, 2)
    stream.close()
    assert [reader.result(PATIENCE) for reader in readers] == [[], [], []]
    with pytest.raises(PulseEdgeError, match="closed before it began"):
        _ = stream.answer
    queued(model, 1)
    assert len(model.worker.unfinished) == 1


def test_a_waiting_call_is_interrupted(
    model: pulse_edge.Model, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    ran: list[int] = []

    def work(engine: Engine, _: object) -> None:
        ran.append(engine.length)

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.run_on_engine(work)
    busy.end()
    model.forget()
    assert ran == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, LookupError])
def test_a_request_that_cannot_be_queued(
    bundle: Path,
    model: pulse_edge.Model,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fails(*_: object) -> None:
        raise error

    stream = model.stream(page(), Q1, max_new_tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(model.worker, "begin", fails)
        with pytest.raises(EngineError if error is MemoryError else error):
            next(stream)
    assert list(stream) == []
    assert usable(model, bundle)


def test_an_interrupt_after_a_request_was_queued(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is raised, and the request is cancelled or withdrawn."""
    begin = model.worker.begin

    def interrupted(*request: Any) -> None:
        begin(*request)
        raise KeyboardInterrupt

    for _ in range(3):
        stream = model.stream(page(), Q1, max_new_tokens=LONG)
        with monkeypatch.context() as patch:
            patch.setattr(model.worker, "begin", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(stream)
        assert list(stream) == []
        assert usable(model, bundle)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_start(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        for call in (lambda: model.ask(page(), Q1), model.forget):
            with pytest.raises(EngineError, match=r"thread cannot start .* free memory"):
                call()
    assert usable(model, bundle)
