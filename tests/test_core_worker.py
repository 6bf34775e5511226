"""The worker's thread with work of its own, without a model: calls, turns, and what is let go."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.delivery import Delivery
from pulse_edge.errors import EngineError, PulseEdgeError, QueueFullError, QueueTimeoutError
from pulse_edge.params import Patience
from pulse_edge.worker import Worker

from support.requests import settled

PATIENCE = 60  # seconds


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.disable()
    yield
    gc.enable()


class Held:
    """Work that waits until it may go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may = threading.Event()

    def __call__(self, own: Delivery) -> None:
        self.begun.set()
        assert self.may.wait(PATIENCE)


@pytest.fixture
def held() -> Iterator[Held]:
    work = Held()
    yield work
    work.may.set()


def begun(worker: Worker, held: Held) -> Delivery:
    delivery = Delivery(worker.thread)
    worker.begin(delivery, held)
    assert held.begun.wait(PATIENCE)
    return delivery


def test_a_call_returns_what_the_work_returns() -> None:
    worker = Worker()
    assert worker.call(lambda _: threading.current_thread()) is worker.thread
    assert worker.call(lambda _: None) is None
    assert worker.call(lambda own: own.requested) is False
    assert settled(worker)


class OwnError(Exception):
    """Has weak references, as Python's own errors have not."""


def test_a_call_raises_what_the_work_raises(uncollected: None) -> None:
    worker = Worker()
    error = OwnError("of the work")
    alive = weakref.ref(error)
    errors = [error]
    del error

    def fails(_: Cancellation) -> None:
        raise errors.pop()

    text = ""
    try:  # pytest.raises would keep the error
        worker.call(fails)
    except OwnError as caught:
        text = str(caught)
    assert text == "of the work"
    assert worker.call(lambda _: 5) == 5  # the thread has left the failed work
    assert settled(worker)
    assert alive() is None


def test_calls_run_in_order_one_at_a_time() -> None:
    worker = Worker()
    seen: list[tuple[int, int]] = []
    lock = threading.Lock()
    inside = [0]

    def work(number: int) -> None:
        with lock:
            inside[0] += 1
            seen.append((number, inside[0]))
            inside[0] -= 1

    deliveries = [Delivery(worker.thread) for _ in range(20)]
    for number, delivery in enumerate(deliveries):
        worker.begin(delivery, lambda own, number=number: work(number))  # type: ignore[misc]
    for delivery in deliveries:
        delivery.wait()
    assert seen == [(number, 1) for number in range(20)]
    assert [delivery.number for delivery in deliveries] == [*range(1, 21)]


def test_one_request_is_under_way_if_no_slots_are_said() -> None:
    worker = Worker()
    steps: list[str] = []

    def loop(name: str) -> Generator[None, None, Any]:
        for _ in range(3):
            steps.append(name)
            yield

    deliveries = {name: Delivery(worker.thread) for name in ("a", "b")}
    may = threading.Event()
    held = threading.Thread(target=lambda: worker.call(lambda _: may.wait(PATIENCE)))
    held.start()
    while not worker.unfinished:
        time.sleep(0.001)
    for name, delivery in deliveries.items():
        worker.begin(delivery, lambda own, name=name: loop(name))  # type: ignore[misc]
    may.set()
    for delivery in deliveries.values():
        delivery.wait()
    held.join(PATIENCE)
    assert steps == ["a", "a", "a", "b", "b", "b"]


def test_who_asks_at_the_interpreter_s_exit_is_told_so() -> None:
    worker = Worker()
    assert worker.closed_message == "the interpreter is exiting; ask the model before that"
    worker.close()
    assert worker.closed_message == "the model is closed; load it again"


def test_what_runs_and_what_waits(held: Held) -> None:
    worker = Worker()
    assert (worker.running, worker.unfinished) == (None, frozenset())
    first = begun(worker, held)
    assert worker.running is first
    second = Delivery(worker.thread)
    worker.begin(second, lambda own: None)
    assert worker.unfinished == {first, second}
    assert worker.running is first
    held.may.set()
    second.wait()
    assert settled(worker)
    assert worker.call(lambda _: 1) == 1
    assert settled(worker)
    end = threading.Event()
    while worker.running is not None and not end.wait(0.001):
        pass
    assert worker.unfinished == frozenset()


def test_a_request_that_does_not_wait(held: Held) -> None:
    worker = Worker()
    first = begun(worker, held)
    second = Delivery(worker.thread)
    worker.begin(second, lambda own: None, Patience(0))
    second.wait()
    error = second.take_error()
    assert isinstance(error, QueueTimeoutError)
    assert "busy with another request" in str(error)
    assert worker.unfinished == {first}
    held.may.set()
    first.wait()
    assert settled(worker)
    third = Delivery(worker.thread)
    worker.begin(third, lambda own: None, Patience(0))  # the thread is free, if not yet ready
    third.wait()
    assert third.take_error() is None


def test_a_wait_that_is_interrupted_cancels_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()
    seen: list[Cancellation] = []
    go = threading.Event()

    def interrupted(self: Delivery) -> None:
        assert go.wait(PATIENCE)
        raise KeyboardInterrupt

    def work(own: Cancellation) -> None:
        seen.append(own)
        go.set()
        end = threading.Event()
        for _ in range(60_000):
            own.check()
            end.wait(0.001)

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.call(work)
    assert seen[0].requested
    with pytest.raises(Cancelled):
        seen[0].check()
    assert worker.call(lambda _: "next") == "next"


@pytest.mark.parametrize(
    ("seconds", "behind", "after"), [(None, None, 1.0), (40.0, 20.0, 60.0), (40.0, None, 1.0)]
)
def test_who_finds_the_queue_full_is_told_when_to_come_again(
    held: Held, seconds: float | None, behind: float | None, after: float
) -> None:
    """After all that is predicted, background work too; after a second if not all of it is."""
    worker = Worker(queue_limit=1)
    begun(worker, held).seconds = seconds
    second = Delivery(worker.thread)
    second.seconds = behind
    worker.begin(second, lambda own: None, priority="background")
    with pytest.raises(QueueFullError, match=r"^1 requests wait for the model") as refused:
        worker.begin(Delivery(worker.thread), lambda own: None)
    assert refused.value.retry_after_s == pytest.approx(after, abs=10)
    held.may.set()
    second.wait()


def test_the_thread_keeps_no_process_alive() -> None:
    assert Worker().thread.daemon


def test_a_call_that_waits_when_the_worker_is_closed(held: Held) -> None:
    """It raises the reason, though its work has neither run nor failed."""
    worker = Worker()
    first = begun(worker, held)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(worker.call, lambda _: None)
        while len(worker.unfinished) < 2:
            time.sleep(0.001)
        closing = pool.submit(worker.close)
        with pytest.raises(PulseEdgeError, match=r"^the model is closed; load it again$"):
            waiting.result(PATIENCE)
        held.may.set()
        closing.result(PATIENCE)
    assert first.ended


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_worker_whose_thread_cannot_start_is_closed_all_the_same(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object) -> None:
        raise error

    worker = Worker()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        with pytest.raises(EngineError, match="thread cannot start"):
            worker.call(lambda _: None)
    worker.close()  # joins no thread that was never started
    with pytest.raises(PulseEdgeError, match="the model is closed"):
        worker.call(lambda _: None)


def test_an_idle_worker_is_collected(uncollected: None) -> None:
    worker = Worker()
    thread = worker.thread
    assert worker.call(lambda _: 1) == 1
    assert settled(worker)
    alive = weakref.ref(worker)
    del worker
    assert alive() is None
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_what_the_work_held_is_let_go(uncollected: None) -> None:
    """Also while the thread waits for the next request."""

    class Page:
        pass

    worker = Worker()
    page = Page()
    alive = weakref.ref(page)
    worker.call(lambda _, page=page: page is None)  # type: ignore[misc]
    del page
    assert settled(worker)
    end = threading.Event()
    for _ in range(10_000):
        if alive() is None or end.wait(0.001):
            break
    assert alive() is None
