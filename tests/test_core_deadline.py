"""What becomes of a delivery when its deadline passes, and how long it still takes."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pulse_edge.answer import Stopwatch
from pulse_edge.cancellation import Cancelled
from pulse_edge.deadline import Deadline
from pulse_edge.decode.result import Generation
from pulse_edge.delivery import Delivery

from support.ticking import WorkClock

LATE: Any = "what there is of the answer"
FAR = 10_000  # seconds


def delivery(answer: Any = LATE) -> Delivery:
    """One whose deadline is far away, until `expire` is called."""
    own = Delivery(threading.Thread())
    own.limit(Deadline(FAR), lambda: answer)
    return own


def late(own: Delivery) -> tuple[bool, bool, bool, Any]:
    return own.expired, own.cancelled, own.ended, own.answer


def test_before_its_turn_it_ends_with_what_there_is() -> None:
    own = delivery()
    ran: list[Delivery] = []
    own.enqueue(lambda each: ran.append(each), own.worker, set())
    own.expire()
    assert late(own) == (True, False, True, LATE)
    assert not own.take_turn()
    assert ran == []
    own.wait()


def test_before_it_was_queued() -> None:
    own = Delivery(threading.Thread())
    own.expired = True
    own.limit(Deadline(FAR), lambda: LATE)
    unfinished: set[Delivery] = set()
    own.enqueue(lambda _: None, own.worker, unfinished)
    assert late(own) == (True, False, True, LATE)
    assert unfinished == set()


def stops(own: Delivery) -> None:
    raise Cancelled


def test_during_its_preparation() -> None:
    """A wait may see that the deadline has passed before the alarm rings."""
    own = delivery()
    own.begin(stops)
    assert late(own) == (True, False, True, LATE)


def test_a_preparation_that_was_cancelled() -> None:
    own = delivery()
    own.cancellation.request()
    own.begin(stops)
    assert late(own) == (False, True, True, None)


def test_as_its_turn_comes() -> None:
    own = delivery()
    own.enqueue(lambda _: pytest.fail("it ran"), own.worker, set())
    assert own.take_turn()
    own.expire()
    assert not own.ended
    assert own.run() is True
    assert own.answer is LATE


def test_an_answer_that_cannot_be_made() -> None:
    def fails() -> None:
        raise LookupError("no page")

    own = Delivery(threading.Thread())
    own.limit(Deadline(FAR), fails)
    own.expire()
    assert own.ended
    assert isinstance(own.take_error(), LookupError)


def test_without_a_deadline_nothing_is_made() -> None:
    own = Delivery(threading.Thread())
    own.expire()
    assert late(own) == (True, False, True, None)
    assert own.take_error() is None


def test_a_deadline_that_passes() -> None:
    own = Delivery(threading.Thread())
    own.limit(Deadline(0.001), lambda: LATE)
    own.wait()
    assert late(own) == (True, False, True, LATE)


def test_seconds_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    own = Delivery(threading.Thread())
    assert own.left_s is None
    own.seconds = 10.0
    clock.now += 3
    assert own.left_s == 10
    assert own.take_turn()
    clock.now += 4
    assert own.left_s == 6
    clock.now += 40
    assert own.left_s == 0
    own.seconds = None
    assert own.left_s is None


def test_seconds_of_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    own = Delivery(threading.Thread())
    clock.now += 2
    assert own.silent_s == 2
    own.expect(5.0)
    assert (own.usual_s, own.silent_s) == (5.0, 0)
    clock.now += 3
    assert own.silent_s == 3
    own.progress(None)("prefill", 1, 2)
    assert own.silent_s == 0
    clock.now += 1
    own.take_turn()
    assert own.silent_s == 0


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.disable()
    yield
    gc.enable()


def test_a_wait_that_is_over_keeps_nothing(uncollected: None) -> None:
    own = Delivery(threading.Thread())
    own.withdraw()
    reader = threading.Thread(target=own.wait)  # has waited for nothing before
    reader.start()
    reader.join()
    alive = weakref.ref(own)
    del own
    assert alive() is None


def test_what_a_turn_and_a_wait_return() -> None:
    own = Delivery(threading.Thread())
    assert own.wait_for_turn(0) is False
    assert own.take_turn() is True
    assert own.take_turn() is False
    assert own.withdraw() is False
    assert own.wait_for_turn(0) is True


def test_its_worker_is_the_one_that_it_was_queued_for() -> None:
    own = Delivery(threading.Thread())
    worker = threading.Thread()
    own.enqueue(lambda _: None, worker, set())
    assert own.worker is worker


def test_nothing_is_counted_between_turns() -> None:
    clock = WorkClock()
    watch = Stopwatch(clock)
    watch.begin_turn()
    clock.add(2)
    watch.end_turn()
    clock.add(30)
    watch.end_turn()
    timings = watch.timings(Generation(clock=clock))
    assert (timings.total, timings.queued) == (2, 30)


def test_seconds_per_token_leave_out_the_first() -> None:
    clock = WorkClock()
    watch = Stopwatch(clock)
    watch.begin_turn()
    out = Generation(tokens=[7, 8, 9], finish_reason="length")
    out.first_token_at, out.last_token_at = 2.0, 8.0
    clock.add(9)
    timings = watch.timings(out)
    assert (timings.ttft, timings.tpot, timings.total) == (2, 3, 9)


def test_its_alarm_ends_with_it() -> None:
    """Its thread does not wait for the deadline."""
    before = set(threading.enumerate())
    own = delivery()
    (alarm,) = (t for t in set(threading.enumerate()) - before if t.name == "pulse-edge deadline")
    assert alarm.daemon
    own.withdraw()
    alarm.join(10)
    assert not alarm.is_alive()
