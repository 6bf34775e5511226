"""Signs of life, readiness and figures."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import pulse_edge
from pulse_edge.health import Health

from support.paced import paced
from support.requests import Q1
from support.served import SECONDS, Served, about, eventually, served


def test_health(shared: Served) -> None:
    response = shared.client.get("/health")
    assert response.status_code == 200
    assert response.json()["healthy"] is True
    assert shared.client.head("/health").status_code == 200


def test_ready_after_the_self_test(shared: Served) -> None:
    assert eventually(lambda: shared.client.get("/ready").status_code == 200)
    record = shared.client.get("/ready").json()
    assert record["ready"] is True
    assert record["self_test"]["passed"] is True


def test_ready_once_the_token_is_right(
    nano: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    def self_test() -> SimpleNamespace:
        may_end.wait(SECONDS)
        return SimpleNamespace(passed=True, seconds=0.25)

    monkeypatch.setattr(nano, "self_test", self_test)
    with served(nano, tested=False) as server:
        before = server.client.get("/ready")
        assert (before.status_code, before.json()["self_test"]) == (503, None)
        assert server.client.get("/health").status_code == 200
        may_end.set()
        assert eventually(lambda: server.client.get("/ready").status_code == 200)
        outcome = server.client.get("/ready").json()["self_test"]
        assert outcome == {"passed": True, "seconds": 0.25}


@pytest.mark.parametrize("fails", [False, True])
def test_not_ready_without_the_right_token(
    nano: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def self_test() -> SimpleNamespace:
        if fails:
            raise RuntimeError("no token")
        return SimpleNamespace(passed=False, seconds=0.25)

    monkeypatch.setattr(nano, "self_test", self_test)
    with served(nano) as server:
        assert eventually(lambda: server.client.get("/ready").json()["self_test"] is not None)
        response = server.client.get("/ready")
        assert (response.status_code, response.json()["ready"]) == (503, False)
        assert response.json()["self_test"]["passed"] is False
        assert server.client.get("/health").status_code == 200


def test_an_engine_that_hangs(nano: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(nano) as server:
        monkeypatch.setattr(nano, "health", lambda: Health(False, "stuck", 99.0, 3))
        response = server.client.get("/health")
        assert (response.status_code, response.json()["reason"]) == (503, "stuck")
        assert server.client.get("/ready").status_code == 503
        assert "pulse_edge_healthy 0.0" in server.client.get("/metrics").text


def test_health_is_told_while_everything_waits(nano: pulse_edge.Model) -> None:
    with served(nano, queue=2) as server, paced(nano) as pace, ThreadPoolExecutor(3) as pool:
        pace.hold()
        futures = [pool.submit(server.chat, Q1, max_tokens=3) for _ in range(3)]
        assert eventually(lambda: pace.steps == 1)
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/ready").json()["healthy"] is True
        pace.go()
        for future in futures:
            future.result()


def figures(server: Served) -> dict[str, float]:
    lines = server.client.get("/metrics").text.splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in pairs}


def test_figures(nano: pulse_edge.Model, png: bytes) -> None:
    with served(nano) as server:
        server.chat(about(png, Q1), max_tokens=3)
        server.chat(about(png, Q1), max_tokens=3, stream=True)
        server.chat(Q1, max_tokens=0)
        server.chat(Q1, max_tokens=9, deadline_s=1e-4, best_effort=True)
        server.client.get("/nowhere/JaneDoe")
        found = figures(server)
        text = server.client.get("/metrics")
    route = 'route="/v1/chat/completions"'
    assert found[f'pulse_edge_requests_total{{{route},status="200"}}'] == 3
    assert found[f'pulse_edge_requests_total{{{route},status="400"}}'] == 1
    assert found['pulse_edge_requests_total{route="other",status="404"}'] == 1
    assert found['pulse_edge_refusals_total{code="invalid_parameter"}'] == 1
    assert found['pulse_edge_answers_total{finish="length"}'] == 2
    assert found['pulse_edge_answers_total{finish="deadline"}'] == 1
    assert found["pulse_edge_deadline_misses_total"] == 1
    assert found['pulse_edge_tokens_total{kind="new"}'] >= 6
    assert found["pulse_edge_ttft_seconds_count"] >= 2
    assert found["pulse_edge_under_way"] == 0
    assert found["pulse_edge_healthy"] == 1
    assert found["process_resident_memory_bytes"] > 1e7
    seal = nano.bundle.digest
    assert any(f'seal="{seal}"' in name for name in found)
    assert "Jane" not in text.text
    assert text.headers["content-type"].startswith("text/plain; version=")


def test_two_servers_have_their_own_figures(nano: pulse_edge.Model) -> None:
    with served(nano) as one, served(nano) as other:
        one.chat(Q1, max_tokens=1)
        key: Any = 'pulse_edge_answers_total{finish="length"}'
        assert figures(one)[key] == 1
        assert key not in figures(other)
