"""Answers that are left, broken or shared by several threads."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pulse_edge
from pulse_edge.arrays import Numbers
from pulse_edge.engines.engine import Features, Rows
from pulse_edge.errors import EngineError, PulseEdgeError

from support.requests import LONG, Q1, Q2, fresh, page, usable

# --- cancelling -----------------------------------------------------------------------------------


def close(model: pulse_edge.Model) -> pulse_edge.Stream:
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    next(stream)
    stream.close()
    return stream


def leave_with(model: pulse_edge.Model) -> pulse_edge.Stream:
    with model.stream(page(), Q1, max_new_tokens=LONG) as stream:
        next(stream)
    return stream


def interrupt(model: pulse_edge.Model) -> pulse_edge.Stream:
    """Ctrl-C while the caller prints."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    try:
        with stream:
            for _ in stream:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    return stream


@pytest.mark.parametrize("cancel", [close, leave_with, interrupt])
def test_cancelling_leaves_the_model_usable(
    bundle: Path, model: pulse_edge.Model, cancel: Callable[[pulse_edge.Model], pulse_edge.Stream]
) -> None:
    whole = model.ask(page(), Q1, max_new_tokens=40)
    stream = cancel(model)
    answer = stream.answer
    assert (answer.finish_reason, answer.text) == ("cancelled", stream.text)
    assert 1 <= len(answer.token_ids) < LONG  # the model works ahead of its reader
    assert answer.token_ids[:40] == whole.token_ids[: len(answer.token_ids)]
    assert list(stream) == []
    assert usable(model, bundle)


def test_a_stream_that_is_dropped_ends_at_once(bundle: Path, model: pulse_edge.Model) -> None:
    """By its reference count: nobody waits for the garbage collector, which is switched
    off here.
    """
    gc.disable()
    try:
        for _ in model.stream(page(), Q1, max_new_tokens=LONG):
            break
        chat = model.chat(page())
        for _ in chat.stream(Q1, max_new_tokens=LONG):
            break
        assert usable(model, bundle)
        assert chat.ask(Q2, max_new_tokens=40).token_ids == fresh(bundle, page(), Q2).token_ids
    finally:
        gc.enable()


def test_ctrl_c_inside_the_engine(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for stage in ("encode", "prefill", "choose"):
        model.ask(
            page(), Q1, max_new_tokens=5
        )  # of which the cache must not claim to hold more than it does
        with monkeypatch.context() as patch:
            patch.setattr(model.engine, stage, interrupted)
            with pytest.raises(KeyboardInterrupt):
                model.ask(page(3), Q1)
        assert usable(model, bundle)


def test_closing_from_another_thread(bundle: Path) -> None:
    """In the middle of the prefill, which then ends."""
    working, closed = threading.Event(), threading.Event()

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "prefill" and done:
            working.set()
            assert closed.wait(60)

    model = pulse_edge.load(bundle, threads=1, progress=progress)
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: stream.answer)
        assert working.wait(60)
        stream.close()
        closed.set()
        assert answer.result().finish_reason == "cancelled"
    assert stream.answer.token_ids == ()
    assert stream.answer.usage.image_tokens == 80
    assert usable(model, bundle)


def test_closed_before_it_began(model: pulse_edge.Model) -> None:
    stream = model.stream(page(), Q1)
    stream.close()
    assert list(stream) == []
    with pytest.raises(PulseEdgeError, match="closed before it began"):
        _ = stream.answer


# --- failing --------------------------------------------------------------------------------------


def test_a_failure_midway_is_an_error_and_no_answer(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embedding that is not a number spoils the logits, and the cache's rows, which later
    answers must not see.
    """
    whole = model.ask(page(), Q1, max_new_tokens=40)
    real = model.engine.rows

    def spoiled(numbers: Numbers, page: Features | None = None) -> Rows:
        rows = np.array(real(numbers, page))
        rows[numbers == whole.token_ids[6]] = np.nan
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "rows", spoiled)
        stream = model.stream(page(), Q1, max_new_tokens=40)
        with pytest.raises(EngineError, match="not finite"):
            _ = stream.answer
    assert whole.text.startswith(stream.text)
    with pytest.raises(PulseEdgeError, match="or failed"):
        _ = stream.answer
    assert model.engine.length == 0
    again = model.ask(page(), Q1, max_new_tokens=40)
    assert again.usage.cached_tokens == 0
    assert again.token_ids == whole.token_ids
    assert usable(model, bundle)


def test_other_requests_in_the_same_thread_wait_their_turn(
    bundle: Path, model: pulse_edge.Model
) -> None:
    """Whether or not a stream that was begun before is read further."""
    first = model.stream(page(), Q1, max_new_tokens=40)
    begun = next(first)
    assert model.ask(page(), Q2, max_new_tokens=40).token_ids == fresh(bundle, page(), Q2).token_ids
    second = model.stream(None, Q2, max_new_tokens=40)
    text = next(second)
    assert (
        model.chat(None).ask(Q1, max_new_tokens=40).token_ids == fresh(bundle, None, Q1).token_ids
    )
    assert second.answer.text.startswith(text)
    assert second.answer.token_ids == fresh(bundle, None, Q2).token_ids
    assert first.answer.text.startswith(begun)
    assert first.answer.token_ids == fresh(bundle, page(), Q1).token_ids
    assert usable(model, bundle)


# --- threads --------------------------------------------------------------------------------------


def test_threads_take_turns(bundle: Path, model: pulse_edge.Model) -> None:
    requests = [(page(i % 3), q, t) for i in range(6) for q in (Q1, Q2) for t in (0.0, 1.0)]

    def ask(request: tuple[np.ndarray, str, float]) -> tuple[str, tuple[int, ...]]:
        image, question, temperature = request
        if temperature:
            with model.stream(image, question, max_new_tokens=LONG) as left:
                next(left)
        answer = model.ask(image, question, max_new_tokens=20, temperature=temperature)
        return answer.text, answer.token_ids

    expected = [fresh(bundle, i, q, max_new_tokens=20, temperature=t) for i, q, t in requests]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, requests)) == [(a.text, a.token_ids) for a in expected]


def test_a_stream_may_change_hands(bundle: Path, model: pulse_edge.Model) -> None:
    stream = model.stream(page(), Q1, max_new_tokens=40)
    next(stream)
    with ThreadPoolExecutor(1) as pool:
        assert (
            pool.submit(lambda: stream.answer).result().token_ids
            == fresh(bundle, page(), Q1).token_ids
        )
    assert usable(model, bundle)


def test_a_stream_that_three_threads_share(bundle: Path, model: pulse_edge.Model) -> None:
    """One begins it, another reads on, a third closes it; none of them the thread that made it."""
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
        text = first.submit(next, stream).result(60)
        text += second.submit(next, stream).result(60)
        with ThreadPoolExecutor(1) as third:
            third.submit(stream.close).result(60)
        answer = first.submit(lambda: stream.answer).result(60)
    assert answer.finish_reason == "cancelled"
    assert answer.text == stream.text
    assert stream.text.startswith(text)
    assert (
        answer.token_ids
        == fresh(bundle, page(), Q1, max_new_tokens=LONG).token_ids[: len(answer.token_ids)]
    )
    assert usable(model, bundle)


@pytest.mark.parametrize("readers", [2, 5])
def test_readers_share_the_pieces(bundle: Path, model: pulse_edge.Model, readers: int) -> None:
    """Each piece goes to one of them, all see the end, and the stream has the text in order."""
    whole = fresh(bundle, page(), Q1, max_new_tokens=60)
    barrier = threading.Barrier(readers)
    stream = model.stream(page(), Q1, max_new_tokens=60)

    def read(_: int) -> list[str]:
        barrier.wait()
        return list(stream)

    with ThreadPoolExecutor(readers) as pool:
        shares = list(pool.map(read, range(readers)))
    assert stream.text == stream.answer.text == whole.text
    assert sorted("".join(map("".join, shares))) == sorted(whole.text)


def test_one_reads_and_another_takes_the_answer(bundle: Path, model: pulse_edge.Model) -> None:
    whole = fresh(bundle, page(), Q1)
    stream = model.stream(page(), Q1, max_new_tokens=40)
    with ThreadPoolExecutor(2) as pool:
        pieces = pool.submit(lambda: list(stream))
        assert pool.submit(lambda: stream.answer).result(60).token_ids == whole.token_ids
        assert len(pieces.result(60)) <= 40
    assert stream.text == whole.text


def test_a_request_is_begun_once(model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    begin = model.worker.begin

    def watched(*request: Any) -> None:
        begun.append(request[0])
        begin(*request)

    monkeypatch.setattr(model.worker, "begin", watched)
    stream = model.stream(page(), Q1, max_new_tokens=5)
    with ThreadPoolExecutor(4) as pool:
        assert len({id(answer) for answer in pool.map(lambda _: stream.answer, range(8))}) == 1
    assert begun == [stream.delivery]


def test_a_stream_that_has_begun_lets_the_model_go(bundle: Path) -> None:
    """It holds neither the model nor the page, whether it was read or not; nor does its error."""
    model = pulse_edge.load(bundle, threads=1)
    array = page()
    read = model.stream(array, Q1, max_new_tokens=3)
    half = model.stream(array, Q1, max_new_tokens=40)
    failing = model.stream(b"no image", Q1)
    assert read.answer
    assert next(half)
    with pytest.raises(pulse_edge.ImageError):
        next(failing)
    known = weakref.ref(model), weakref.ref(array)
    gc.disable()
    try:
        model.forget()
        del model, array
        assert [each() for each in known] == [None, None]
    finally:
        gc.enable()
    assert len(half.answer.token_ids) == 40


def test_an_error_is_raised_once_and_in_no_cycle(model: pulse_edge.Model) -> None:
    stream = model.stream(b"no image", Q1)
    gc.collect()
    gc.disable()
    try:
        try:
            next(stream)
        except pulse_edge.ImageError as error:
            known = weakref.ref(error)
        assert known() is None
    finally:
        gc.enable()
    assert list(stream) == []


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["encode", "rows", "prefill", "choose"])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        EngineError("the vision graph failed: std::bad_alloc"),
        EngineError("the decoder failed: Failed to allocate memory for requested buffer of size 9"),
        EngineError("CUDA failure 2: out of memory ; GPU=0"),
        EngineError("CUDA_ERROR_OUT_OF_MEMORY: cuMemAlloc"),
        EngineError("bad allocation"),
    ],
)
def test_low_memory_says_memory(
    bundle: Path,
    model: pulse_edge.Model,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: Exception,
) -> None:
    """Wherever it is met, and the model goes on."""

    def fails(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, stage, fails)
        with pytest.raises(EngineError, match=r"^too little free memory .*end other pr") as caught:
            model.ask(page(), Q1)
    text = str(caught.value)
    assert str(error) in text
    assert "()" not in text
    assert text.isprintable()
    assert model.ask(page(), Q1, max_new_tokens=3).usage.cached_tokens == 0


def test_other_errors_are_themselves(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (EngineError("the graph is broken"), ValueError("bad_alloc"), KeyError("memory")):

        def fails(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(model.engine, "prefill", fails)
            with pytest.raises(type(error)) as caught:
                model.ask(page(), Q1)
        assert caught.value is error


def test_low_memory_outside_of_the_engine(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError

    for target in (
        "pulse_edge.runner.TextStream",
        "pulse_edge.runner.provenance",
        "pulse_edge.runner.render",
        "pulse_edge.dispatcher.Stopwatch",
        "pulse_edge.delivery.Delivery.put",
        "pulse_edge.worker.Worker.begin",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, fails)
            with pytest.raises(EngineError, match="too little free memory for this request; end"):
                model.ask(page(), Q1, max_new_tokens=3)
    with pytest.raises(EngineError, match="too little free memory"):
        model.run_on_engine(fails)
    assert usable(model, bundle)
