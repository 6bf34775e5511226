"""How a server ends, and what it tells systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

import pulse_edge
from pulse_edge.health import Health
from pulse_edge.serve.notify import notify, watchdog_seconds

from support.paced import paced
from support.requests import LONG, Q1
from support.served import SECONDS, Served, body, chunks, eventually, served

ROUTE = "/v1/chat/completions"


def post(server: Served, **fields: object) -> httpx.Response:
    with httpx.Client(base_url=server.url, timeout=SECONDS, trust_env=False) as client:
        return client.post(ROUTE, json=body(Q1, **fields))


def test_a_running_request_ends_before_the_server(model: pulse_edge.Model) -> None:
    with paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        with served(model, drain_seconds=60) as server:
            future = pool.submit(post, server, max_tokens=8)
            assert eventually(lambda: pace.steps == 1)
            server.server.should_exit = True
            assert eventually(lambda: server.service.admission.draining)
            pace.go()
            answer = future.result(SECONDS)
        assert answer.status_code == 200
        expected = model.ask(None, Q1, max_new_tokens=8).text
        assert answer.json()["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize("stream", [False, True])
def test_what_runs_for_too_long_is_cancelled(model: pulse_edge.Model, stream: bool) -> None:
    with paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        with served(model, drain_seconds=0.1) as server:
            future = pool.submit(post, server, max_tokens=LONG, stream=stream)
            assert eventually(lambda: pace.steps == 1)
            begun = time.monotonic()
            server.server.should_exit = True
            assert eventually(lambda: any(d.cancelled for d in model.worker.unfinished))
            pace.go()
            answer = future.result(SECONDS)
        assert time.monotonic() - begun < 20
        assert answer.status_code == 200
        if stream:
            assert chunks(answer.text.split("\n\n")[:-1])[-1]["pulse_edge"]["finish_reason"] == (
                "cancelled"
            )
        else:
            assert answer.json()["pulse_edge"]["finish_reason"] == "cancelled"


def test_a_second_signal_cancels_at_once(model: pulse_edge.Model) -> None:
    with paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        with served(model, drain_seconds=600) as server:
            pool.submit(post, server, max_tokens=LONG)
            assert eventually(lambda: pace.steps == 1)
            server.server.handle_exit(15, None)
            assert eventually(lambda: server.service.admission.draining)
            server.server.handle_exit(15, None)
            assert eventually(lambda: any(d.cancelled for d in model.worker.unfinished))
            pace.go()
        assert eventually(lambda: not model.worker.unfinished)


def test_requests_after_the_signal_go_elsewhere(model: pulse_edge.Model) -> None:
    with served(model) as server:
        server.service.admission.draining = True
        response = server.chat(Q1)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "stopping")
        assert response.headers["x-should-retry"] == "true"
        ready = server.client.get("/ready")
        assert (ready.status_code, ready.json()["stopping"]) == (503, True)
        assert server.client.get("/health").status_code == 200
        server.service.admission.draining = False
        assert server.chat(Q1, max_tokens=1).status_code == 200


def test_a_client_that_does_not_read_is_left(model: pulse_edge.Model) -> None:
    with served(model, write_seconds=0.2) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            fields = {"stream": True, "logprobs": True, "top_logprobs": 20, "max_tokens": LONG}
            record = json.dumps(body(Q1, **fields)).encode()
            connection.sendall(
                b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                % (ROUTE.encode(), len(record), record)
            )
            assert eventually(lambda: server.service.admission.under_way == 1)
            assert server.settled()
            assert eventually(lambda: not server.server.server_state.tasks)


# -- an engine that hangs


STUCK = Health(False, "a call of the engine has taken 99 s", 99.0, 0)


@pytest.mark.parametrize("stuck_seconds", [0.05, 0.4])
def test_a_server_whose_engine_is_stuck_ends(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, stuck_seconds: float
) -> None:
    with served(model, stuck_seconds=stuck_seconds) as server:
        assert server.chat(Q1, max_tokens=1).status_code == 200
        begun = time.monotonic()
        monkeypatch.setattr(model, "health", lambda: STUCK)
        assert eventually(lambda: server.server.stuck is not None)
        assert time.monotonic() - begun >= stuck_seconds
        assert eventually(lambda: not server.server.server_state.connections)
    assert server.server.stuck == STUCK.reason


def test_requests_that_wait_for_a_stuck_engine_hear_of_it(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        with served(model, stuck_seconds=0.2) as server:
            running = pool.submit(post, server, max_tokens=4)
            assert eventually(lambda: pace.steps == 1)
            monkeypatch.setattr(model, "health", lambda: STUCK)
            waiting = post(server, max_tokens=4)
            assert (waiting.status_code, waiting.json()["error"]["code"]) == (409, "cancelled")
        pace.go()
        with suppress(httpx.HTTPError):  # the connection may end before a status
            assert running.result(SECONDS).status_code == 500
    assert eventually(lambda: not model.worker.unfinished)


@pytest.mark.parametrize("stuck_seconds", [0.0, 5.0])
def test_a_server_goes_on_if_its_engine_does_again(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, stuck_seconds: float
) -> None:
    with served(model, stuck_seconds=stuck_seconds) as server:
        with monkeypatch.context() as patch:
            patch.setattr(model, "health", lambda: STUCK)
            assert server.client.get("/health").status_code == 503
            time.sleep(0.3)
        assert server.client.get("/health").status_code == 200
        assert server.server.stuck is None


# -- systemd


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd would listen on."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
    ):
        path = str(Path(folder) / "notify")
        listener.bind(path)
        listener.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield listener


def test_systemd_is_told(
    model: pulse_edge.Model, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    with served(model):
        assert systemd.recv(99) == b"READY=1"
        assert systemd.recv(99) == b"WATCHDOG=1"
        assert systemd.recv(99) == b"WATCHDOG=1"
    assert systemd.recv(99) == b"STOPPING=1"


def test_a_hanging_engine_gives_no_sign_of_life(
    model: pulse_edge.Model, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setattr(model, "health", lambda: Health(False, "stuck", 99.0, 0))
    with served(model):
        assert systemd.recv(99) == b"READY=1"
        time.sleep(1.2)
    assert systemd.recv(99) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        (None, None, None),
        ("", None, None),
        ("soon", None, None),
        ("30000000", None, 15.0),
        ("30000000", "own", 15.0),
        ("30000000", "1", None),
        ("10", None, 1.0),
    ],
)
def test_how_often_a_sign_is_given(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, seconds: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert watchdog_seconds() == seconds


def test_nobody_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    notify("READY=1")


HANGING = """
import sys, time
import pulse_edge
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.listener import open_listener, url_of
from pulse_edge.serve.server import run_server

config = ServeConfig(port=0, drain_seconds=0.1)
listener = open_listener(config)
model = pulse_edge.load(threads=1)
vars(model.engine)["choose"] = lambda *_, **__: time.sleep(600)
print(url_of(listener), flush=True)
run_server(model, config, listener)
"""


def test_an_engine_that_hangs_does_not_keep_the_server(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=2, trust_env=False) as client:
            with pytest.raises(httpx.TimeoutException):
                client.post(ROUTE, json=body(Q1))
            assert client.get("/health").json()["under_way"] == 1
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=SECONDS)
        assert time.monotonic() - begun < 30
        assert process.returncode == -signal.SIGTERM, err
        assert "Traceback" not in err
    finally:
        process.kill()
