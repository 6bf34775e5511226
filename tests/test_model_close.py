"""A model that is closed: its requests end, its thread ends, and it says so afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pulse_edge
from pulse_edge.errors import PulseEdgeError

from support.paced import paced
from support.requests import LONG, Q1, Q2, page

SECONDS = 60.0
WAYS: dict[str, Callable[[pulse_edge.Model], object]] = {
    "ask": lambda model: model.ask(page(), Q1, max_new_tokens=2),
    "ask without a page": lambda model: model.ask(None, Q1, max_new_tokens=2),
    "stream": lambda model: next(model.stream(page(), Q1)),
    "chat": lambda model: model.chat(page()).ask(Q1, max_new_tokens=2),
    "look": lambda model: model.look(page()).wait(),
    "score": lambda model: model.score(None, Q1, ("yes", "no")),
    "panel": lambda model: model.panel(page()),
    "self-test": lambda model: model.self_test(),
    "forget": lambda model: model.forget(),
}


@pytest.fixture
def fresh_model(bundle: Path) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1)


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_closed_model_refuses(fresh_model: pulse_edge.Model, way: str, asked: bool) -> None:
    if asked:
        fresh_model.ask(None, Q1, max_new_tokens=1)
    fresh_model.close()
    with pytest.raises(PulseEdgeError, match=r"^the model is closed; load it again$"):
        WAYS[way](fresh_model)
    assert not fresh_model.worker.thread.is_alive()


def test_a_block_closes_its_model(bundle: Path) -> None:
    with pulse_edge.load(bundle, threads=1) as model:
        assert model.ask(page(), Q1, max_new_tokens=2).token_ids
    with pytest.raises(PulseEdgeError, match="the model is closed"):
        model.ask(page(), Q1)
    assert not model.worker.thread.is_alive()


def test_closing_again_is_fine(fresh_model: pulse_edge.Model) -> None:
    fresh_model.ask(None, Q1, max_new_tokens=1)
    for _ in range(3):
        fresh_model.close()


@pytest.mark.parametrize("image", [False, True])
def test_a_running_answer_ends_with_what_there_is(
    fresh_model: pulse_edge.Model, image: bool
) -> None:
    with paced(fresh_model) as pace, ThreadPoolExecutor(2) as pool:
        pace.hold()
        stream = fresh_model.stream(page() if image else None, Q1, max_new_tokens=LONG)
        answer = pool.submit(lambda: stream.answer)
        while pace.steps == 0:
            time.sleep(0.001)
        closing = pool.submit(fresh_model.close)
        while not stream.delivery.cancelled:
            time.sleep(0.001)
        pace.go()
        closing.result(SECONDS)
        assert answer.result(SECONDS).finish_reason == "cancelled"
    assert not fresh_model.worker.unfinished


@pytest.mark.parametrize("waiting", [1, 5])
def test_waiting_requests_end_at_once(fresh_model: pulse_edge.Model, waiting: int) -> None:
    with paced(fresh_model) as pace, ThreadPoolExecutor(waiting + 2) as pool:
        pace.hold()
        first = pool.submit(fresh_model.ask, None, Q1, max_new_tokens=LONG)
        while pace.steps == 0:
            time.sleep(0.001)
        others = [pool.submit(fresh_model.ask, None, Q2) for _ in range(waiting)]
        while len(fresh_model.worker.unfinished) < 1 + waiting:
            time.sleep(0.001)
        closing = pool.submit(fresh_model.close)
        for other in others:  # while the engine still holds
            with pytest.raises(PulseEdgeError):
                other.result(SECONDS)
        pace.go()
        closing.result(SECONDS)
        assert first.result(SECONDS).finish_reason == "cancelled"


@pytest.mark.parametrize("way", ["score", "forget"])
def test_who_gets_no_answer_is_told_why(fresh_model: pulse_edge.Model, way: str) -> None:
    """These requests wait for their turn when the model is closed."""
    with paced(fresh_model) as pace, ThreadPoolExecutor(3) as pool:
        pace.hold()
        first = pool.submit(fresh_model.ask, None, Q1, max_new_tokens=LONG)
        while pace.steps == 0:
            time.sleep(0.001)
        waiting = pool.submit(WAYS[way], fresh_model)
        while len(fresh_model.worker.unfinished) < 2:
            time.sleep(0.001)
        closing = pool.submit(fresh_model.close)
        with pytest.raises(PulseEdgeError, match=r"^the model is closed; load it again$"):
            waiting.result(SECONDS)
        pace.go()
        closing.result(SECONDS)
        first.result(SECONDS)


@pytest.mark.parametrize("stage", ["vision", "prefill"])
def test_another_thread_closes_it_before_the_first_token(bundle: Path, stage: str) -> None:
    """In the tower, between two views, and at a chunk of the prefill."""
    reached = threading.Event()
    go = threading.Event()

    def told(name: str, amount: int, total: int) -> None:
        if name == stage and (amount or stage == "prefill") and not reached.is_set():
            reached.set()
            assert go.wait(SECONDS)

    model = pulse_edge.load(bundle, threads=1, prefill_chunk=16, progress=told)
    with ThreadPoolExecutor(2) as pool:
        stream: Any = model.stream(page(), Q1, max_new_tokens=LONG)
        answer = pool.submit(lambda: stream.answer)
        assert reached.wait(SECONDS)
        closing = pool.submit(model.close)
        while not stream.delivery.cancelled:
            time.sleep(0.001)
        go.set()
        closing.result(SECONDS)
        ended = answer.result(SECONDS)
    assert (ended.finish_reason, ended.token_ids) == ("cancelled", ())
    assert ended.timings.ttft is None
    assert (ended.timings.prefill == 0) == (stage == "vision")
