"""Whether a stuck engine is told from a slow one."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

import pulse_edge
from pulse_edge.bundle.manifest import ExpectedToken
from pulse_edge.delivery import Delivery
from pulse_edge.health import LEAST_S, UNKNOWN_S, examine

from support.requests import LONG, Q1


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Delivery:
    delivery = Delivery(threading.current_thread())
    delivery.take_turn()
    return delivery


def later(delivery: Delivery, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let that time pass."""
    now, clock = time.monotonic() + seconds, time.perf_counter() + seconds
    monkeypatch.setattr("pulse_edge.delivery.time.monotonic", lambda: now)
    delivery.out.clock = lambda: clock


def test_an_idle_engine_is_healthy() -> None:
    health = examine(None, 0)
    assert (health.healthy, health.reason, health.running_s, health.queued) == (True, None, None, 0)


@pytest.mark.parametrize(
    ("usual", "seconds", "healthy"),
    [
        (None, UNKNOWN_S - 5, True),
        (None, UNKNOWN_S + 5, False),
        (0.01, LEAST_S - 2, True),
        (0.01, LEAST_S + 2, False),
        (30.0, 590, True),
        (30.0, 610, False),
    ],
)
def test_a_call_before_the_first_token(
    running: Delivery,
    monkeypatch: pytest.MonkeyPatch,
    usual: float | None,
    seconds: float,
    healthy: bool,
) -> None:
    running.expect(usual)
    later(running, seconds, monkeypatch)
    health = examine(running, 3)
    assert (health.healthy, health.queued) == (healthy, 3)
    assert health.running_s == pytest.approx(seconds, abs=1)
    assert (health.reason is None) == healthy
    if not healthy:
        assert "restart the process" in str(health.reason)


@pytest.mark.parametrize(
    ("step", "seconds", "healthy"),
    [(0.001, 9, True), (0.001, 11, False), (2.0, 39, True), (2.0, 41, False)],
)
def test_a_step(
    running: Delivery,
    monkeypatch: pytest.MonkeyPatch,
    step: float,
    seconds: float,
    healthy: bool,
) -> None:
    running.out.last_token_at = time.perf_counter()
    running.out.step_seconds = [step, step, 100.0]
    later(running, seconds, monkeypatch)
    assert examine(running, 0).healthy == healthy


def test_a_stage_that_gets_on_is_not_stuck(
    running: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.expect(0.1)
    later(running, 100, monkeypatch)
    assert not examine(running, 0).healthy
    running.progress(None)("prefill", 1, 2)
    assert examine(running, 0).healthy


def test_a_model_s_health(bundle: Path) -> None:
    model = pulse_edge.load(bundle, threads=1)
    assert model.health().running_s is None
    stream = model.stream(None, Q1, max_new_tokens=LONG)
    next(stream)
    health = model.health()
    assert (health.healthy, health.queued) == (True, 0)
    assert stream.answer.finish_reason


@pytest.mark.parametrize("recorded", [None, 0, 1])
def test_a_self_test_compares_with_the_export_s_token(bundle: Path, recorded: int | None) -> None:
    model = pulse_edge.load(bundle, threads=1)
    token = model.ask(None, "rate?", max_new_tokens=1).token_ids[0]
    manifest = model.bundle.manifest
    if recorded is not None:
        expected = ExpectedToken("rate?", token + recorded)
        manifest = dataclasses.replace(manifest, self_test=expected)
        model.bundle = dataclasses.replace(model.bundle, manifest=manifest)
    else:
        model.bundle = dataclasses.replace(
            model.bundle, manifest=dataclasses.replace(manifest, self_test=None)
        )
    test = model.self_test()
    assert test.passed == (recorded != 1)
    assert test.expected == (None if recorded is None else token + recorded)
    assert test.seconds > 0
    if recorded is not None:
        assert test.token == token
