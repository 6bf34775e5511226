"""A stream over a delivery, without a model: what its readers get, and what it lets go of."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pulse_edge.answer import Request
from pulse_edge.delivery import Delivery
from pulse_edge.errors import PulseEdgeError
from pulse_edge.params import GenerationParams, Terms
from pulse_edge.stream import Stream

Work = Callable[[Delivery], Any]
ANSWER: Any = "the whole answer"


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.disable()
    yield
    gc.enable()


def request() -> Request:
    return Request((1, 2), "prompt", None, GenerationParams(), Terms())


def serve(work: Work) -> Callable[[Request, Delivery], None]:
    """Begins a request and does its work at once."""

    def begin(_: Request, delivery: Delivery) -> None:
        delivery.enqueue(work, delivery.worker, set())
        assert delivery.take_turn()
        delivery.run()
        delivery.end()

    return begin


def delivery() -> Delivery:
    return Delivery(threading.Thread())


def handing(texts: str) -> Work:
    def work(own: Delivery) -> Any:
        for text in texts:
            own.put(text)
        return ANSWER

    return work


def failing(errors: list[BaseException]) -> Work:
    """Its frame, which the error's traceback holds, holds the error no more."""

    def work(own: Delivery) -> Any:
        own.put("a")
        raise errors.pop()

    return work


def test_pieces_text_and_answer() -> None:
    stream = Stream(request(), serve(handing("abc")), delivery())
    assert stream.text == ""
    assert not stream.delivery.begun
    assert next(stream) == "a"
    assert stream.text == "a"
    assert list(stream) == ["b", "c"]
    assert stream.text == "abc"
    assert list(stream) == []
    assert stream.answer is ANSWER
    assert stream.answer is ANSWER


def test_an_answer_without_reading() -> None:
    stream = Stream(request(), serve(handing("abc")), delivery())
    assert stream.answer is ANSWER
    assert stream.text == "abc"
    assert list(stream) == []


def test_it_begins_with_its_own_request_once() -> None:
    begun: list[Request] = []
    asked = request()

    def begin(each: Request, own: Delivery) -> None:
        begun.append(each)
        serve(handing("ab"))(each, own)

    stream = Stream(asked, begin, delivery())
    assert (stream.request, begun) == (asked, [])
    assert list(stream) == ["a", "b"]
    assert stream.answer is ANSWER
    assert len(begun) == 1
    assert begun[0] is asked


def test_it_keeps_no_model_after_it_began(uncollected: None) -> None:
    class Model:
        def begin(self, each: Request, own: Delivery) -> None:
            serve(handing("ab"))(each, own)

    model = Model()
    alive = weakref.ref(model)
    stream = Stream(request(), model.begin, delivery())
    del model
    assert alive() is not None
    assert next(stream) == "a"
    assert alive() is None
    assert next(stream) == "b"


class OwnError(Exception):
    """Has weak references, as Python's own errors have not."""


@pytest.mark.parametrize("way", ["next", "answer"])
def test_an_error_is_raised_once_and_forgotten(uncollected: None, way: str) -> None:
    errors: list[BaseException] = [OwnError("of the work")]
    alive = weakref.ref(errors[0])
    stream = Stream(request(), serve(failing(errors)), delivery())

    def read() -> object:
        return list(stream) if way == "next" else stream.answer

    text = ""
    try:  # pytest.raises would keep the error
        read()
    except OwnError as caught:
        text = str(caught)
    assert text == "of the work"
    assert alive() is None
    assert stream.text == "a"
    assert list(stream) == []
    with pytest.raises(PulseEdgeError, match="closed before it began, or failed"):
        _ = stream.answer


def test_a_stream_that_was_closed_before_it_began() -> None:
    stream = Stream(request(), serve(handing("abc")), delivery())
    stream.close()
    assert stream.delivery.cancelled
    assert list(stream) == []
    assert not stream.delivery.begun
    with pytest.raises(PulseEdgeError, match="closed before it began"):
        _ = stream.answer


def test_leaving_a_block_or_dropping_a_stream_cancels(uncollected: None) -> None:
    with Stream(request(), serve(handing("abc")), delivery()) as stream:
        assert next(stream) == "a"
        assert not stream.delivery.cancelled
    assert stream.delivery.cancelled
    assert list(stream) == []
    own = delivery()
    dropped = Stream(request(), serve(handing("abc")), own)
    assert not own.cancelled
    del dropped
    assert own.cancelled


def test_a_stream_that_was_read_to_its_end_is_not_cancelled(uncollected: None) -> None:
    own = delivery()
    with Stream(request(), serve(handing("a")), own) as stream:
        assert list(stream) == ["a"]
    del stream
    assert not own.cancelled


class Interrupted(Delivery):
    """Ctrl-C comes while somebody waits."""

    def receive(self) -> tuple[int, str] | None:
        raise KeyboardInterrupt

    def wait(self) -> None:
        raise KeyboardInterrupt


def test_a_wait_that_is_interrupted_cancels() -> None:
    for read in (next, lambda stream: stream.answer):
        own = Interrupted(threading.Thread())
        stream = Stream(request(), serve(handing("a")), own)
        with pytest.raises(KeyboardInterrupt):
            read(stream)
        assert own.cancelled


class Backwards(Delivery):
    """Gives the later piece first, as where another thread has taken the one before it."""

    def __init__(self) -> None:
        super().__init__(threading.Thread())
        self.left = [(1, "a"), (3, "c"), (2, "b")]

    def receive(self) -> tuple[int, str] | None:
        return self.left.pop() if self.left else None


def test_text_is_in_the_order_of_its_pieces() -> None:
    stream = Stream(request(), serve(handing("")), Backwards())
    assert list(stream) == ["b", "c", "a"]
    assert stream.text == "abc"


def test_log_probabilities_from_a_place_on() -> None:
    stream = Stream(request(), serve(handing("")), delivery())
    first, second = object(), object()
    some: Any = [first, second]
    stream.delivery.out.logprobs = some
    assert stream.logprobs() == some
    assert [entry is second for entry in stream.logprobs(1)] == [True]
    assert stream.logprobs(2) == []
