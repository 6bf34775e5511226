"""A request between its readers and its worker: ends that are seen by all, and waits that end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

from pulse_edge.cancellation import Cancelled
from pulse_edge.delivery import Delivery
from pulse_edge.errors import PulseEdgeError

PATIENCE = 60  # seconds


def delivery() -> Delivery:
    return Delivery(threading.Thread())


def served(work: Callable[[Delivery], Any]) -> Delivery:
    """A delivery whose work a worker has done."""
    done = delivery()
    done.begin(lambda own: own.enqueue(work, own.worker, set()))
    assert done.take_turn()
    done.run()
    done.end()
    return done


def nothing() -> None:
    pass


def interrupt() -> None:
    raise KeyboardInterrupt


class Hooks:
    """What happens at each use of a delivery's queues."""

    def __init__(self) -> None:
        self.before_get: Callable[[], None] = nothing
        self.after_get: Callable[[], None] = nothing
        self.before_put: Callable[[], None] = nothing


def hooked(patch: pytest.MonkeyPatch) -> Hooks:
    """Give deliveries queues that call hooks."""
    hooks = Hooks()

    class Hooked(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            hooks.before_get()
            item = super().get(block, timeout)
            hooks.after_get()
            return item

        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            hooks.before_put()
            super().put(item)

    patch.setattr("pulse_edge.delivery.SimpleQueue", Hooked)
    return hooks


def handing(texts: str) -> Callable[[Delivery], None]:
    """Work that hands over a piece for each letter."""

    def work(own: Delivery) -> None:
        for text in texts:
            own.put(text)

    return work


def pieces(done: Delivery) -> list[str]:
    received = []
    while (piece := done.receive()) is not None:
        received.append(piece)
    return [text for _, text in received]


# --- the end -------------------------------------------------------------------------------------


def test_every_reader_sees_the_end_again_and_again() -> None:
    done = served(handing("ab"))
    assert pieces(done) == ["a", "b"]
    assert done.text == "ab"
    for _ in range(3):
        assert done.receive() is None
        assert done.wait_for_turn(0)
        done.wait()


@pytest.mark.parametrize("wait", ["receive", "wait", "wait_for_turn"])
def test_the_end_outlives_a_mark_that_ctrl_c_has_lost(
    monkeypatch: pytest.MonkeyPatch, wait: str
) -> None:
    """Ctrl-C may come when a mark was taken from a queue and not yet looked at."""
    queues = hooked(monkeypatch)
    done = served(handing(""))
    arguments = [0] if wait == "wait_for_turn" else []
    for _ in range(3):
        queues.after_get = interrupt
        with pytest.raises(KeyboardInterrupt):
            getattr(done, wait)(*arguments)
        queues.after_get = nothing
        getattr(done, wait)(*arguments)
    assert done.receive() is None


def test_numbers_of_pieces_are_in_order() -> None:
    done = served(handing("abc"))
    assert [done.receive() for _ in range(3)] == [(1, "a"), (2, "b"), (3, "c")]
    assert not done.read
    assert done.receive() is None
    assert done.read


def test_no_turn_comes_before_it_comes() -> None:
    waiting = delivery()
    assert not waiting.wait_for_turn(0)
    assert not waiting.wait_for_turn(0.01)
    assert waiting.take_turn()
    assert waiting.wait_for_turn(0)


# --- who does what -------------------------------------------------------------------------------


def test_a_turn_is_taken_or_withdrawn_once() -> None:
    first, second = delivery(), delivery()
    assert first.take_turn()
    assert not first.take_turn()
    assert not first.withdraw()
    assert second.withdraw(KeyError("why"))
    assert not second.withdraw(KeyError("again"))
    assert not second.take_turn()
    assert [str(second.take_error()), second.take_error()] == ["'why'", None]
    second.wait()


def test_it_is_begun_once() -> None:
    begun: list[Delivery] = []
    own = delivery()
    assert not own.begun
    for _ in range(2):
        own.begin(begun.append)
    assert begun == [own]
    assert own.begun


def test_what_begins_it_may_fail() -> None:
    def fails(own: Delivery) -> None:
        raise LookupError("no")

    own = delivery()
    own.begin(fails)
    assert own.receive() is None
    assert isinstance(own.take_error(), LookupError)
    assert own.answer is None


def test_what_begins_it_may_fail_when_it_runs_already() -> None:
    def fails(own: Delivery) -> None:
        assert own.take_turn()
        raise LookupError("no")

    own = delivery()
    with pytest.raises(LookupError):
        own.begin(fails)
    assert own.cancelled
    assert own.take_error() is None


def test_a_preparation_that_was_cancelled_is_no_error() -> None:
    def stops(own: Delivery) -> None:
        own.cancel()
        raise Cancelled

    own = delivery()
    own.begin(stops)
    assert own.receive() is None
    assert own.take_error() is None


def test_it_leaves_its_worker_s_requests_at_its_end() -> None:
    unfinished: set[Delivery] = set()
    first, second, late = delivery(), delivery(), delivery()
    for own in (first, second):
        own.enqueue(lambda _: None, own.worker, unfinished)
    assert unfinished == {first, second}
    assert first.take_turn()
    first.run()
    assert first in unfinished
    first.end()
    second.withdraw()
    assert unfinished == set()
    late.withdraw()
    late.enqueue(lambda _: None, late.worker, unfinished)
    assert unfinished == set()
    assert not late.take_turn()


def test_cancelling_before_its_turn_withdraws_it_and_after_its_end_does_nothing() -> None:
    waiting = delivery()
    ran: list[Delivery] = []
    waiting.enqueue(lambda own: ran.append(own), waiting.worker, set())
    waiting.cancel()
    assert (waiting.cancelled, waiting.take_turn(), ran) == (True, False, [])
    waiting.wait()
    done = served(lambda own: None)
    assert done.receive() is None
    done.cancel()
    assert not done.cancelled


def test_work_does_not_run_if_the_signal_came_with_the_turn() -> None:
    own = delivery()
    ran: list[Delivery] = []
    own.enqueue(lambda each: ran.append(each), own.worker, set())
    assert own.take_turn()
    own.cancel()
    own.run()
    assert ran == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, Cancelled])
def test_what_the_work_raises_is_for_the_first_reader(error: type[BaseException]) -> None:
    def fails(_: Delivery) -> None:
        raise error

    failed = served(fails)
    assert failed.answer is None
    assert isinstance(failed.take_error(), error)
    assert failed.take_error() is None


# --- waits ---------------------------------------------------------------------------------------


WAITS: dict[str, Callable[[Delivery], object]] = {
    "end": Delivery.wait,
    "piece": Delivery.receive,
    "turn": lambda own: own.wait_for_turn(0.01),
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_worker_cannot_wait_for_itself(wait: str) -> None:
    own = Delivery(threading.current_thread())
    with pytest.raises(PulseEdgeError, match="progress callback waits"):
        WAITS[wait](own)
    own.withdraw()
    WAITS[wait](own)  # it has ended: nothing is waited for


@pytest.mark.parametrize("length", [2, 3, 5])
def test_workers_cannot_wait_in_a_circle(length: int) -> None:
    """Each waits for the next one; the last to begin is refused."""
    with ThreadPoolExecutor(length) as pool:
        barrier = threading.Barrier(length + 1)
        threads: list[threading.Thread] = []

        def register() -> None:
            threads.append(threading.current_thread())
            barrier.wait(PATIENCE)

        for _ in range(length):
            pool.submit(register)
        barrier.wait(PATIENCE)
        circle = {thread: Delivery(threads[(i + 1) % length]) for i, thread in enumerate(threads)}
        go = threading.Barrier(length)

        def wait() -> str:
            own = circle[threading.current_thread()]
            go.wait(PATIENCE)
            try:
                own.wait()
            except PulseEdgeError as error:
                # What this worker ran ends, so the one that waits for it goes on.
                for each in circle.values():
                    if each.worker is threading.current_thread():
                        each.withdraw()
                return str(error)
            for each in circle.values():
                if each.worker is threading.current_thread():
                    each.withdraw()
            return ""

        errors = [future.result(PATIENCE) for future in [pool.submit(wait) for _ in range(length)]]
    assert any("another model's callback" in error for error in errors)


def test_a_line_of_workers_is_no_circle() -> None:
    """A waits for B, which waits for C: C's requests end, and so do all."""
    last = delivery()
    begun = threading.Event()

    def middle() -> None:
        begun.set()
        last.wait()

    worker = threading.Thread(target=middle)
    worker.start()
    assert begun.wait(PATIENCE)
    own = Delivery(worker)
    threading.Timer(0.02, lambda: (last.withdraw(), own.withdraw())).start()
    own.wait()
    worker.join(PATIENCE)
    assert not worker.is_alive()


def test_a_wait_within_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a finalizer or a signal's handler: the outer one is still known afterwards."""
    queues = hooked(monkeypatch)
    outer, inner = delivery(), delivery()
    inner.withdraw()
    others = Delivery(threading.current_thread())
    errors: list[BaseException | None] = []

    def handle() -> None:
        queues.before_get = nothing
        inner.wait()
        with ThreadPoolExecutor(1) as pool:
            outer.worker = pool.submit(threading.current_thread).result(PATIENCE)
            errors.append(pool.submit(others.wait).exception(PATIENCE))
        outer.withdraw()

    queues.before_get = handle
    outer.wait()
    assert "callback waits" in str(errors[0])
    with ThreadPoolExecutor(1) as pool:  # and none is known any more
        outer.worker = pool.submit(threading.current_thread).result(PATIENCE)
        waiting = pool.submit(others.wait_for_turn, 0)
        assert waiting.result(PATIENCE) is False


def test_a_finalizer_may_cancel_in_the_midst_of_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call blocks on what another call of the same thread has taken."""
    queues = hooked(monkeypatch)
    own = delivery()
    queues.before_get = queues.after_get = queues.before_put = own.cancel
    own.enqueue(lambda _: None, own.worker, set())
    assert own.take_turn()
    own.put("a")
    own.run()
    own.end()
    assert own.receive() == (1, "a")
    assert own.receive() is None
    own.wait()
