"""Requests that are cancelled in the middle of a call: it ends early, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import pulse_edge
from pulse_edge.bundle.bundle import open_bundle
from pulse_edge.cancellation import Cancellation, Cancelled
from pulse_edge.engines.engine import Engine
from pulse_edge.engines.options import EngineOptions
from pulse_edge.engines.registry import open_engine
from pulse_edge.errors import EngineError

from support.requests import LONG, Q1, Q2, fresh, page, usable


class DuringCall(Cancellation):
    """Lets `calls` calls pass; another thread requests it during the next one."""

    def __init__(self, calls: int = 0) -> None:
        super().__init__()
        self.calls = calls
        self.interrupted = 0

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        with super().interrupting(interrupt):
            if self.calls == 0:
                self.interrupted += 1
                closer = threading.Thread(target=self.request)
                closer.start()
                closer.join()
            self.calls -= 1
            yield


# --- the signal ----------------------------------------------------------------------------------


def test_a_signal_interrupts_the_block_that_runs_and_no_other() -> None:
    cancellation = Cancellation()
    interrupts: list[str] = []
    with cancellation.interrupting(lambda: interrupts.append("first")):
        pass

    def call() -> None:
        with cancellation.interrupting(lambda: interrupts.append("second")):
            cancellation.request()
            raise EngineError("terminated")

    with pytest.raises(Cancelled):
        call()
    cancellation.request()
    assert interrupts == ["second"]


def test_no_block_begins_after_the_signal() -> None:
    cancellation = Cancellation()
    cancellation.request()
    with pytest.raises(Cancelled), cancellation.interrupting(lambda: None):
        pytest.fail("the block ran")


def test_a_block_that_ends_well_in_spite_of_the_signal() -> None:
    """As a graph whose last node runs already."""
    cancellation = Cancellation()
    with cancellation.interrupting(lambda: None):
        cancellation.request()
    assert cancellation.requested


def test_a_failure_without_a_signal_is_a_failure() -> None:
    with pytest.raises(EngineError, match="broken"), Cancellation().interrupting(lambda: None):
        raise EngineError("broken")


# --- ONNX Runtime --------------------------------------------------------------------------------


@pytest.fixture
def engine(bundle: Path) -> Engine:
    return open_engine(open_bundle(bundle), EngineOptions(threads=1, prefill_chunk=5))


def pixels(engine: Engine, bundle: Path) -> np.ndarray:
    side = open_bundle(bundle).manifest.model.vision.image_size
    return np.random.default_rng(0).standard_normal((2, 3, side, side)).astype(np.float32)


def test_a_tower_that_is_interrupted(engine: Engine, bundle: Path) -> None:
    views = pixels(engine, bundle)
    before = np.array(engine.encode(views))
    cancellation = DuringCall()
    with pytest.raises(Cancelled):
        engine.encode(views, cancellation)
    assert cancellation.interrupted
    assert np.array_equal(engine.encode(views), before)
    assert np.array_equal(engine.encode(views, Cancellation()), before)


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_a_prefill_that_is_interrupted(engine: Engine, chunks: int) -> None:
    """The cache then holds what it held before."""
    rows = engine.rows(np.arange(20) + 5)
    engine.prefill(rows[:4])
    before = engine.prefill(rows[4:]).copy()
    engine.rewind(4)
    cancellation = DuringCall(chunks)
    with pytest.raises(Cancelled):
        engine.prefill(rows[4:][::-1], None, 0, cancellation)
    assert cancellation.interrupted
    assert engine.length == 4
    assert np.array_equal(engine.prefill(rows[4:]), before)


def test_a_failure_is_not_taken_for_a_cancellation(engine: Engine) -> None:
    with pytest.raises(EngineError, match="the vision graph failed"):
        engine.encode(np.zeros((1, 3, 5, 5), np.float32), Cancellation())


# --- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_request_that_is_closed_during_a_call(bundle: Path, calls: int) -> None:
    """Call 0 is the tower's, the others are the first chunks of the prefill."""
    model = pulse_edge.load(bundle, threads=1, prefill_chunk=16)
    assert model.ask(page(1), Q2, max_new_tokens=3)
    stream = model.stream(page(), Q1, max_new_tokens=LONG)
    cancellation = DuringCall(calls)
    stream.delivery.out.cancellation = cancellation
    assert list(stream) == []
    assert cancellation.interrupted
    assert stream.answer.finish_reason == "cancelled"
    assert stream.answer.timings.ttft is None
    assert model.ask(page(), Q1, max_new_tokens=40).token_ids == fresh(bundle, page(), Q1).token_ids
    assert usable(model, bundle)


def test_closed_at_any_moment() -> None:
    """The next request answers as if the closed one had never been."""
    embedded = pulse_edge.load()
    expected = embedded.ask(page(), Q1, max_new_tokens=12)
    for delay in np.linspace(0, 1.2 * expected.timings.total, 12):
        embedded.forget()
        stream = embedded.stream(page(), Q1, max_new_tokens=12)
        closer = threading.Timer(delay, stream.close)
        closer.start()
        "".join(stream)
        closer.join()
        again = embedded.ask(page(), Q1, max_new_tokens=12)
        assert again.token_ids == expected.token_ids
