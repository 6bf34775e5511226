"""Asks a running server: `pulse-edge serve`, its fleet on Ray, or another OpenAI-compatible one."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_edge.errors import ImageError, ParameterError, PulseEdgeError
from pulse_edge.evaluate.ecgbench.ask import MAX_NEW_TOKENS, ItemReply, Mode
from pulse_edge.evaluate.ecgbench.items import BenchItem

TIMEOUT_S = 3600.0  # a page of a 7B model takes minutes on a CPU
ATTEMPTS = 30  # of a request that finds the server busy
WAIT_S = 2.0  # before the next one, if the server names no time
MOST_WAIT_S = 60.0
MOST_SHOWN = 200  # characters of a server's own words
_BUSY = (429, 503)
_ITEM = (400, 413, 415, 422)  # refusals that are about this page or prompt alone
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"BM": "bmp"}


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, asked without proxies and redirects: they are other addresses.

    Attributes:
        url: up to and with `/v1`.
        key: sent as bearer token; None sends none.
        sleep: waits for seconds.

    Raises:
        ParameterError: the URL is none of HTTP.
    """

    url: str
    key: str | None = None
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ParameterError(f"base URL {self.url!r:.80} must be like http://127.0.0.1:8000/v1")

    def get(self, route: str) -> Any:
        """JSON of a route, such as `/models`. Raises `PulseEdgeError`."""
        return self._request("GET", route, None)

    def post(self, route: str, body: Mapping[str, Any]) -> Any:
        """JSON that a route answers to a body. Raises like `get`; `ImageError` for a bad page."""
        return self._request("POST", route, json.dumps(body).encode())

    def _request(self, method: str, route: str, body: bytes | None) -> Any:
        for attempt in range(ATTEMPTS):
            status, wait_s, data = self._exchange(method, route, body)
            if status not in _BUSY or attempt == ATTEMPTS - 1:
                break
            self.sleep(wait_s)
        if status == 200:
            try:
                return json.loads(data)
            except ValueError:
                raise self._problem("its answer is no JSON") from None
        said = " ".join(data.decode("utf-8", "replace").split())
        if method == "POST" and status in _ITEM:
            raise ImageError(f"the server refused it with {status}: {said:.{MOST_SHOWN}}")
        raise self._problem(f"it answered {status}: {said:.{MOST_SHOWN}}")

    def _exchange(self, method: str, route: str, body: bytes | None) -> tuple[int, float, bytes]:
        """(status, seconds after which to ask again, body) of one request."""
        parts = urllib.parse.urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            with closing(kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)) as connection:
                connection.request(method, parts.path.rstrip("/") + route, body, headers)
                response = connection.getresponse()
                wait = response.headers.get("Retry-After", "")
                wait_s = min(float(wait), MOST_WAIT_S) if wait.isdecimal() else WAIT_S
                return response.status, wait_s, response.read()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._problem(f"it cannot be reached ({error})") from None

    def _problem(self, problem: str) -> PulseEdgeError:
        return PulseEdgeError(f"{self.url}: {problem}; run again to go on")


class ServerAsker:
    """A model behind an endpoint. Prompts are the server's own, so the mode is clean.

    Args:
        endpoint: of the server.
        model: its name there.
    """

    mode: Mode = "clean"

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.name = model
        self.identity = model
        self._endpoint = endpoint

    @classmethod
    def connect(cls, base_url: str, model: str | None, key: str | None = None) -> ServerAsker:
        """Ask a server for its models.

        Args:
            base_url: up to and with `/v1`.
            model: a name there; None: the first one.
            key: see `Endpoint`.

        Raises:
            ParameterError: the URL is wrong, or there is no such model.
            PulseEdgeError: the server cannot be reached.
        """
        endpoint = Endpoint(base_url, key)
        listed = endpoint.get("/models")
        rows = listed.get("data") if isinstance(listed, dict) else None
        names = [row["id"] for row in rows or [] if isinstance(row, dict) and "id" in row]
        if model is None and not names:
            raise ParameterError(f"{base_url}: lists no model; name one with --model")
        if model is not None and names and model not in names:
            shown = ", ".join(map(str, names))
            raise ParameterError(f"{base_url}: has no model {model!r:.60}, but {shown:.200}")
        return cls(endpoint, model or str(names[0]))

    def ask(self, item: BenchItem, page: bytes) -> ItemReply:
        """See `Asker.ask`."""
        questions = [question for question, _ in item.turns] or [item.prompt]
        messages: list[dict[str, Any]] = []
        texts: list[str] = []
        usage = {"prompt_tokens": 0, "new_tokens": 0}
        begun = time.perf_counter()
        reason: str | None = None
        bundle: str | None = None  # ours tell the first digits of the seal
        for question in questions:
            messages.append({"role": "user", "content": question})
            if len(messages) == 1:
                messages[0]["content"] = _with_page(question, page)
            text, reason, used, bundle = self._complete(messages)
            messages.append({"role": "assistant", "content": text})
            texts.append(text.strip())
            usage["prompt_tokens"] += used.get("prompt_tokens") or 0
            usage["new_tokens"] += used.get("completion_tokens") or 0
        timings = {"total": time.perf_counter() - begun, "ttft": None}
        metadata = {"finish_reason": reason, "usage": usage, "timings": timings}
        if bundle is not None:
            metadata["fingerprint"] = bundle
        return ItemReply(tuple(texts), metadata)

    def predict(self, items: Sequence[BenchItem], images: Path) -> float | None:
        """See `Asker.predict`. A server does not tell its speeds."""
        return None

    def _complete(
        self, messages: list[dict[str, Any]]
    ) -> tuple[str, str | None, dict[str, Any], str | None]:
        """Text, finish reason, usage and fingerprint of the next answer."""
        body = {
            "model": self.name,
            "messages": messages,
            "temperature": 0,
            "max_tokens": MAX_NEW_TOKENS,
        }
        reply = self._endpoint.post("/chat/completions", body)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"]
            used = reply.get("usage") or {}
            bundle = reply.get("system_fingerprint")
            known = bundle if isinstance(bundle, str) else None
            return str(text or ""), choice.get("finish_reason"), dict(used), known
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise PulseEdgeError(
                f"{self._endpoint.url}: its answer is no chat completion; name another --base-url"
            ) from None


def _with_page(question: str, page: bytes) -> list[dict[str, Any]]:
    """A message with the page first, as the model was trained."""
    kind = next((name for start, name in _KINDS.items() if page.startswith(start)), "png")
    url = f"data:image/{kind};base64,{base64.b64encode(page).decode()}"
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": question},
    ]
