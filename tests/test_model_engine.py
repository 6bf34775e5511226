"""Work that borrows a model's engine."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import pulse_edge
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.engine import Engine

from support.requests import Q1, page, usable


@pytest.fixture
def model(bundle: Path) -> pulse_edge.Model:
    return pulse_edge.load(bundle, threads=1)


def test_it_runs_in_the_model_s_thread_and_returns(bundle: Path, model: pulse_edge.Model) -> None:
    model.ask(page(), Q1, max_new_tokens=3)
    threads = []

    def fill(engine: Engine, cancellation: Cancellation) -> int:
        threads.append(threading.current_thread().name)
        assert engine.length == 0
        engine.prefill(engine.rows(np.arange(9)), cancellation=cancellation)
        return engine.length

    assert model.run_on_engine(fill) == 9
    assert threads == ["pulse-edge engine"]
    assert model.engine.length == 0
    assert usable(model, bundle)


def test_its_errors_are_raised(bundle: Path, model: pulse_edge.Model) -> None:
    def fail(engine: Engine, _: Cancellation) -> None:
        engine.prefill(engine.rows(np.arange(9)))
        raise LookupError("in the middle")

    with pytest.raises(LookupError, match="in the middle"):
        model.run_on_engine(fail)
    assert usable(model, bundle)


def test_it_is_cancelled_when_the_wait_is_interrupted(
    bundle: Path, model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C: the model's thread does not go on for minutes."""
    begun = threading.Event()
    ended = threading.Event()

    def interrupted(_: object) -> None:
        assert begun.wait(60)
        raise KeyboardInterrupt

    def work(_: Engine, cancellation: Cancellation) -> None:
        begun.set()
        while not cancellation.requested:
            ended.wait(0.001)
        ended.set()

    with monkeypatch.context() as patch:
        patch.setattr("pulse_edge.delivery.Delivery.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.run_on_engine(work)
    assert ended.wait(60)
    assert usable(model, bundle)


def test_what_its_failure_left_is_gone_although_no_request_follows(
    model: pulse_edge.Model,
) -> None:
    def fail(engine: Engine, _: Cancellation) -> None:
        engine.prefill(engine.rows(np.arange(9)))
        raise LookupError("in the middle")

    with pytest.raises(LookupError, match="in the middle"):
        model.run_on_engine(fail)
    assert model.engine.length == 0
