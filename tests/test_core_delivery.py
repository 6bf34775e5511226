"""What a delivery lets go of, and how it says that memory is short."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pulse_edge.cancellation import Cancelled
from pulse_edge.delivery import Delivery, named_shortage
from pulse_edge.errors import EngineError, PulseEdgeError


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.disable()
    yield
    gc.enable()


class Work:
    """Work that can be watched."""

    def __call__(self, own: Delivery) -> Any:
        own.put("a")
        return None


def delivery() -> Delivery:
    return Delivery(threading.Thread())


def run(own: Delivery) -> None:
    assert own.take_turn()
    assert own.run() is True
    own.end()


@pytest.mark.parametrize(
    "end", [run, Delivery.withdraw, Delivery.cancel], ids=["run", "withdrawn", "cancelled"]
)
def test_work_is_let_go_at_its_end(uncollected: None, end: Callable[[Delivery], object]) -> None:
    """It holds the model, and a reader may keep the answer for long."""
    own = delivery()
    work = Work()
    alive = weakref.ref(work)
    own.enqueue(work, own.worker, set())
    del work
    assert alive() is not None
    assert not own.ended
    end(own)
    assert own.ended
    assert alive() is None


def test_work_is_let_go_if_it_was_withdrawn_before(uncollected: None) -> None:
    own = delivery()
    assert own.withdraw()
    work = Work()
    alive = weakref.ref(work)
    own.enqueue(work, own.worker, set())
    del work
    assert alive() is None


class OwnError(Exception):
    """Has weak references, as Python's own errors have not."""


def test_an_error_is_not_kept(uncollected: None) -> None:
    own = delivery()
    error = OwnError("x")
    alive = weakref.ref(error)
    assert own.withdraw(error)
    del error
    assert str(own.take_error()) == "x"
    assert alive() is None


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 5 GB"), " (Unable to allocate 5 GB)"),
        (EngineError("std::bad_alloc"), " (std::bad_alloc)"),
        (EngineError("Failed to allocate memory"), " (Failed to allocate memory)"),
        (EngineError("CUDA_ERROR_OUT_OF_MEMORY"), " (CUDA_ERROR_OUT_OF_MEMORY)"),
        (EngineError("Out of memory"), " (Out of memory)"),
    ],
)
def test_memory_that_is_short_is_named(error: Exception, cause: str) -> None:
    named = named_shortage(error)
    assert type(named) is EngineError
    assert str(named) == (
        f"too little free memory for this request{cause}; end other programs, or load the model "
        "with a smaller context"
    )
    own = delivery()
    own.withdraw(error)
    assert str(own.take_error()) == str(named)


@pytest.mark.parametrize(
    "error", [EngineError("the graph failed"), ValueError("out of memory"), KeyboardInterrupt()]
)
def test_other_errors_are_themselves(error: BaseException) -> None:
    assert named_shortage(error) is error


def test_a_forked_child_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    own = delivery()
    own.withdraw()
    own.wait()
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    for wait in (own.wait, own.receive, lambda: own.wait_for_turn(0)):
        with pytest.raises(PulseEdgeError, match="forked while the answer was under way"):
            wait()


def test_progress_is_told_until_somebody_cancels() -> None:
    own = delivery()
    told: list[tuple[str, int, int]] = []
    tell = own.progress(lambda *call: told.append(call))
    tell("vision", 1, 2)
    own.progress(None)("vision", 2, 2)
    own.cancel()
    for each in (tell, own.progress(None)):
        with pytest.raises(Cancelled):
            each("vision", 2, 2)
    assert told == [("vision", 1, 2)]


def test_a_callback_that_cancels_stops_at_once() -> None:
    own = delivery()
    tell = own.progress(lambda *_: own.cancel())
    with pytest.raises(Cancelled):
        tell("prefill", 1, 2)


def test_a_new_one_is_nobodys_turn() -> None:
    own = Delivery(threading.Thread())
    assert (own.number, own.priority, own.alone) == (0, "interactive", False)
    assert (own.begun, own.ended, own.expired, own.cancelled, own.decoding) == (False,) * 5
    assert (own.seconds, own.prefill_s, own.usual_s, own.left_s) == (None,) * 4
    assert own.left_prefill_s == 0.0


def test_a_preparation_aside_keeps_no_process_alive() -> None:
    own = Delivery(threading.Thread())
    threads: list[threading.Thread] = []

    def start(own: Delivery) -> None:
        threads.append(threading.current_thread())
        own.withdraw()

    own.begin(start, aside=True)
    own.wait()
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon
    assert threads[0].name == "pulse-edge preparation"


def test_a_preparation_aside_that_cannot_start_ends_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = Delivery(threading.Thread())

    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        own.begin(lambda _: None, aside=True)
    assert own.ended
    assert str(own.take_error()) == "can't start new thread"
