"""A model behind a real server on loopback, in threads of this process."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

import pulse_edge
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.listener import open_listener, url_of
from pulse_edge.serve.server import DrainingServer, build_server
from pulse_edge.serve.service import Service
from pulse_edge.serve.stages import Stages

SECONDS = 60.0  # that anything may take on a busy machine


@dataclass(frozen=True)
class Served:
    """A server that runs.

    Attributes:
        url: without a path.
        model: that is served.
        service: what its routes share.
        server: to stop it by.
        client: of httpx, for requests from the test's thread.
    """

    url: str
    model: pulse_edge.Model
    service: Service
    server: DrainingServer
    client: httpx.Client

    def chat(self, content: Any, **fields: Any) -> httpx.Response:
        """Post a completion with one user message."""
        return self.client.post("/v1/chat/completions", json=body(content, **fields))

    def events(self, content: Any, **fields: Any) -> list[str]:
        """The lines of a streamed completion that are not empty."""
        record = body(content, stream=True, **fields)
        with self.client.stream("POST", "/v1/chat/completions", json=record) as response:
            assert response.status_code == 200, response.read()
            return [line for line in response.iter_lines() if line]

    def settled(self) -> bool:
        """Whether no request is under way any more; waits for those that end."""
        return eventually(lambda: not self.service.admission.under_way)


def eventually(condition: Any) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


@contextmanager
def served(model: pulse_edge.Model, **settings: Any) -> Iterator[Served]:
    """Serve a model on a free port.

    Args:
        model: a loaded one.
        settings: of `ServeConfig`. `stages` is handed to the app; `tested` is whether to wait for
            the self-test.
    """
    tested = settings.pop("tested", True)
    stages: Stages | None = settings.pop("stages", None)
    config = ServeConfig(**{"port": 0, "drain_seconds": 0.2} | settings)
    listener = open_listener(config)
    server = build_server(model, config, stages)
    url = url_of(listener)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    assert eventually(lambda: server.started)
    app: Any = server.config.app
    service: Service = app.state.service
    assert not tested or eventually(lambda: service.readiness.outcome is not None)
    try:
        with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as client:
            yield Served(url, model, service, server, client)
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive()


def body(content: Any, **fields: Any) -> dict[str, Any]:
    """A request for a completion with one user message."""
    return {"messages": [{"role": "user", "content": content}], **fields}


def data_url(data: bytes, media: str = "image/png") -> str:
    """Bytes as a data URL."""
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def about(data: bytes, question: str, media: str = "image/png") -> list[dict[str, Any]]:
    """The content of a message with an image."""
    return [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": data_url(data, media)}},
    ]


def chunks(lines: list[str]) -> list[dict[str, Any]]:
    """The records of a stream's lines, without comments and the end mark."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(text) for text in data[:-1]]


def text_of(records: list[dict[str, Any]]) -> str:
    """The text of a stream's records."""
    return "".join(
        choice["delta"].get("content") or "" for record in records for choice in record["choices"]
    )
