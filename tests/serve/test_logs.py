"""Nothing that a client sends is in any log at any level."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import pulse_edge
from pulse_edge.serve.logs import place_of

from support.requests import Q1
from support.served import Served, about, body, served

SECRET = "PlantedJaneDoe"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that any logger says, at every level."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setLevel(1)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(1)
    levels = {}
    for name in ("asyncio", "pulse_edge.serve", "h11", "starlette", "prometheus_client"):
        levels[name] = logging.getLogger(name).level
        logging.getLogger(name).setLevel(1)
    clients = [logging.getLogger(name) for name in ("httpx", "httpcore")]  # the test's own side
    for logger in clients:
        logger.propagate = False
    yield text
    for logger in clients:
        logger.propagate = True
    root.removeHandler(handler)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def attack(server: Served, png: bytes) -> None:
    """Plant the secret wherever a client can put something."""
    client, route = server.client, "/v1/chat/completions"
    headers = {"x-request-id": SECRET, "user-agent": SECRET, "x-patient": SECRET}
    client.post(route, json=body(f"{SECRET}?", max_tokens=2, user=SECRET), headers=headers)
    client.post(route, json=body(about(png, SECRET), max_tokens=2, stop=SECRET))
    client.post(route, json=body(SECRET, stream=True, max_tokens=2, metadata={"name": SECRET}))
    client.post(route, json=body(SECRET, temperature=SECRET))
    client.post(route, json=body(SECRET, **{SECRET: SECRET}, max_tokens=1))
    client.post(route, json=body(SECRET, model=SECRET))
    client.post(route, json=body([{"type": SECRET}]))
    client.post(route, json=body(about(SECRET.encode(), SECRET)))
    client.post(route, content=f'{{"{SECRET}": {SECRET}')
    client.post(route, content=f'{{"{SECRET}": 1, "{SECRET}": 2}}')
    for path in (
        f"/{SECRET}",
        f"/v1/models/{SECRET}",
        f"/v1/pages/{SECRET}",
        f"/v1/ecg?{SECRET}=1",
    ):
        client.get(path)
        client.delete(path)
        client.request(SECRET.upper(), path)
    client.delete(f"/v1/requests/{SECRET}")
    files: dict[str, Any] = {"file": (f"{SECRET}.png", png), "question": (None, SECRET)}
    client.post("/v1/ecg", files=files)
    client.post("/v1/ecg", files=files | {SECRET: (None, SECRET)})
    client.post("/v1/ecg", files={"file": (f"{SECRET}.dcm", SECRET.encode())})
    client.post("/v1/ecg", files={"file": (SECRET, png), "panel": (None, f"/home/{SECRET}")})
    client.post("/v1/pages", content=SECRET.encode(), headers={"content-type": SECRET})
    client.get("/v1/models", headers={"origin": f"https://{SECRET}", "authorization": SECRET})
    client.get("/v1/models", headers={"host": SECRET})
    with httpx.Client(base_url=server.url, trust_env=False) as other:
        other.get("/health", headers={"connection": "close"})


def test_no_log_has_a_secret(nano: pulse_edge.Model, png: bytes, log: io.StringIO) -> None:
    with served(nano) as server:
        attack(server, png)
    text = log.getvalue()
    assert text.count('"event": "request"') > 25
    assert SECRET.lower() not in text.lower()
    for line in text.splitlines():
        if line.startswith("{"):
            json.loads(line)


def test_no_log_has_a_failure_s_message(
    nano: pulse_edge.Model, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(f"/home/{SECRET}/page.png")

    with served(nano) as server:
        monkeypatch.setattr(nano, "stream", fail)
        server.chat(Q1)
        server.chat(Q1, stream=True)
    text = log.getvalue()
    assert SECRET not in text
    failures = [json.loads(line) for line in text.splitlines() if '"internal"' in line]
    assert len(failures) == 2
    assert all(record["error"].startswith("OSError") for record in failures)
    assert all("test_logs.py" in record["error"] for record in failures)


def test_a_line_has_the_figures(nano: pulse_edge.Model, log: io.StringIO) -> None:
    with served(nano) as server:
        response = server.chat(Q1, max_tokens=2)
        server.chat(Q1, max_tokens=0)
    lines = [json.loads(line) for line in log.getvalue().splitlines() if '"request"' in line]
    good, bad = lines
    assert good["id"] == response.headers["x-request-id"]
    assert (good["route"], good["method"], good["status"]) == ("/v1/chat/completions", "POST", 200)
    assert (good["finish"], good["new_tokens"]) == ("length", 2)
    assert good["seconds"] > good["ttft"] > 0
    assert (bad["status"], bad["code"]) == (400, "invalid_parameter")


def test_a_place_has_no_message() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        place = place_of(error)
    assert place.startswith("ValueError test_logs.py:")
    assert SECRET not in place
