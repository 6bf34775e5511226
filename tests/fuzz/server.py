"""Requests to a server that are damaged, odd or hostile.

Each is refused by a status of 4xx with OpenAI's error body, or it was still a request and is
answered. No 5xx, no broken connection, and the server answers the next one.
"""

from __future__ import annotations

import io
import json
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

import pulse_edge

from fuzz.bytes_ import DAMAGE
from fuzz.campaign import ESCAPE, HANG, MEMORY, Counts, Finding
from fuzz.images import picture
from fuzz.json_ import change
from support.served import Served, about, body, data_url, served
from support.soak import resident

QUESTION = "What is the rate?"
ROUTES = ("/v1/chat/completions", "/v1/pages", "/v1/ecg", "/v1/models", "/health", "/", "/v1/x")
FORM = "multipart/form-data; boundary=x"
TYPES = ("application/json", FORM, "text/plain", "image/png", "\xff", "")
CHECKED = 200  # cases between two looks at the memory
GROWTH = 48.0  # MB over all cases after the first ones


class ServerBodies:
    """The campaign: one server for all cases of a process."""

    def __init__(self, _folder: Path) -> None:
        model = pulse_edge.load(threads=1)
        self._open = ExitStack()
        self._server: Served = self._open.enter_context(served(model))
        self._png = _file("PNG")
        self._bodies = [_plain(), _with_page(self._png), _conversation(self._png)]
        self._form, self._type = _form(self._png)
        self._cases = 0
        self._resident = 0.0

    def case(self, number: int, rng: random.Random) -> Counts:
        kinds: tuple[Callable[[random.Random], str], ...] = (
            self._bytes, self._value, self._value, self._damaged_form, self._page, self._raw,
            self._http,
        )  # fmt: skip
        try:
            outcome = rng.choice(kinds)(rng)
        except httpx.TimeoutException as error:
            raise Finding(HANG, repr(error)) from None
        except (httpx.TransportError, OSError) as error:
            raise Finding(ESCAPE, f"the connection broke: {error!r}") from None
        self._check_memory()
        return {outcome: 1}

    def _check_memory(self) -> None:
        self._cases += 1
        if self._cases % CHECKED:
            return
        now = resident()
        if self._cases == CHECKED:
            self._resident = now
        if now - self._resident > GROWTH:
            raise Finding(MEMORY, f"{now - self._resident:.0f} MB in {self._cases} cases")

    def _bytes(self, rng: random.Random) -> str:
        raw = json.dumps(rng.choice(self._bodies)).encode()
        return self._post("/v1/chat/completions", _damaged(raw, rng), "application/json")

    def _value(self, rng: random.Random) -> str:
        record = json.loads(json.dumps(rng.choice(self._bodies)))
        for _ in range(rng.randint(1, 3)):
            record, _place = change(record, rng)
        try:
            raw = json.dumps(record).encode()
        except (TypeError, ValueError):
            raw = repr(record).encode("utf-8", "replace")
        return self._post("/v1/chat/completions", raw, "application/json")

    def _damaged_form(self, rng: random.Random) -> str:
        return self._post("/v1/ecg", _damaged(self._form, rng), self._type)

    def _page(self, rng: random.Random) -> str:
        return self._post("/v1/pages", _damaged(self._png, rng), "image/png")

    def _raw(self, rng: random.Random) -> str:
        raw = rng.choice((
            b"", rng.randbytes(rng.randint(1, 3000)), b"[" * rng.randint(1, 100_000),
            b'{"a":' * rng.randint(1, 20_000), b'"' * rng.randint(1, 100_000),
            b'{"messages": [' + b"{}," * rng.randint(1, 50_000) + b"{}]}",
            b"--x\r\n" * rng.randint(1, 5000), b"\x00" * rng.randint(1, 5000),
            json.dumps({"messages": "x" * rng.randint(1, 1_000_000)}).encode(),
        ))  # fmt: skip
        return self._post(rng.choice(ROUTES), raw, rng.choice(TYPES))

    def _post(self, route: str, raw: bytes, kind: str) -> str:
        headers = [(b"content-type", kind.encode("latin-1"))] if kind else []
        response = self._server.client.post(route, content=raw, headers=headers)
        return self._judged(response.status_code, response)

    def _judged(self, status: int, response: httpx.Response) -> str:
        if status < 300:
            return "answered"
        if not 400 <= status < 500:
            raise Finding(ESCAPE, f"{status} {response.text[:300]}")
        error: Any = response.json().get("error")
        if not isinstance(error, dict) or error.keys() < {"message", "type", "code", "param"}:
            raise Finding(ESCAPE, f"{status} without an error's body: {response.text[:300]}")
        if "\n" in error["message"]:
            raise Finding(ESCAPE, f"a message of several lines: {error['message']!r}")
        return f"refused with {status}"

    def _http(self, rng: random.Random) -> str:
        """Bytes that are hardly HTTP. The server may hang up, and then answers others."""
        whole = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        )
        port = int(self._server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(_damaged(whole, rng))
            connection.shutdown(socket.SHUT_WR)
            try:
                first = connection.recv(4096)
            except ConnectionError:
                first = b""
        if first.startswith(b"HTTP/1.1 5"):
            raise Finding(ESCAPE, repr(first[:200]))
        if self._server.client.get("/health").status_code != 200:
            raise Finding(ESCAPE, "no sign of life after it")
        return "hung up" if not first else f"HTTP {first[9:12].decode('ascii', 'replace')}"


def _damaged(raw: bytes, rng: random.Random) -> bytes:
    return DAMAGE[rng.choice(list(DAMAGE))](raw, rng)


def _file(form: str) -> bytes:
    out = io.BytesIO()
    picture(48, 40, 0).save(out, form)
    return out.getvalue()


def _plain() -> dict[str, Any]:
    return body(
        QUESTION, model="pulse-nano", max_tokens=1, temperature=0.5, top_p=0.9, seed=1,
        stop=["a", "b"], stream=False, n=1, logprobs=True, top_logprobs=2, user="x",
        response_format={"type": "text"}, deadline_s=60.0, priority="interactive",
    )  # fmt: skip


def _with_page(png: bytes) -> dict[str, Any]:
    return body(about(png, QUESTION), max_completion_tokens=1)


def _conversation(png: bytes) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": data_url(png), "detail": "auto"}}
    return {
        "messages": [
            {"role": "system", "content": ""},
            {"role": "user", "content": [image, {"type": "text", "text": QUESTION}]},
            {"role": "assistant", "content": "60"},
            {"role": "user", "content": "Sure?"},
        ],
        "max_tokens": 1,
    }


def _form(png: bytes) -> tuple[bytes, str]:
    files: dict[str, Any] = {
        "file": ("a.png", png),
        "question": (None, QUESTION),
        "max_tokens": (None, "1"),
        "deadline_s": (None, "60"),
    }
    request = httpx.Request("POST", "http://localhost", files=files)
    return request.read(), request.headers["content-type"]
