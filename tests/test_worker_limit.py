"""The limit of a queue counts the requests that wait, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge.delivery import Delivery
from pulse_edge.errors import QueueFullError
from pulse_edge.stream import Stream

from support.requests import Q1, blocked, settled

SECONDS = 60.0


@contextmanager
def thread_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no model's thread take a request that it has been given."""
    go = threading.Event()
    take_turn: Callable[[Delivery], bool] = Delivery.take_turn

    def late(own: Delivery) -> bool:
        assert go.wait(SECONDS)
        return take_turn(own)

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "take_turn", late)
        yield
        go.set()


def begun(model: pulse_edge.Model) -> tuple[Stream, threading.Thread]:
    """A request that somebody reads in a thread of its own."""
    stream = model.stream(None, Q1, max_new_tokens=2)
    count = len(model.worker.unfinished)
    thread = threading.Thread(target=lambda: stream.answer)
    thread.start()
    while len(model.worker.unfinished) == count and thread.is_alive():
        thread.join(0.001)
    return stream, thread


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
def test_a_request_that_an_idle_thread_is_about_to_take_does_not_wait(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    model = pulse_edge.load(bundle, threads=1, queue_limit=limit)
    with thread_held(monkeypatch):
        requests = [begun(model) for _ in range(1 + limit)]
        with pytest.raises(QueueFullError, match=f"^{limit} requests wait"):
            model.ask(None, Q1, max_new_tokens=2)
    for stream, thread in requests:
        thread.join(SECONDS)
        assert stream.answer.token_ids


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_request_that_runs_does_not_wait(bundle: Path, limit: int) -> None:
    model = pulse_edge.load(bundle, threads=1, queue_limit=limit)
    free = blocked(model)
    requests = [begun(model) for _ in range(limit)]
    with pytest.raises(QueueFullError, match=f"^{limit} requests wait"):
        model.ask(None, Q1, max_new_tokens=2)
    free.set()
    for stream, thread in requests:
        thread.join(SECONDS)
        assert stream.answer.token_ids
    assert settled(model.worker)


@pytest.mark.parametrize("limit", [0, 1])
def test_an_idle_model_answers_whatever_the_limit(bundle: Path, limit: int) -> None:
    """Also at once after another request."""
    model = pulse_edge.load(bundle, threads=1, queue_limit=limit)
    for _ in range(20):
        assert model.ask(None, Q1, max_new_tokens=1).token_ids
