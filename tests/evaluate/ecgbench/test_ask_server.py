"""Items asked over HTTP: our own server, servers that are busy, and such as are none."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pulse_edge
from pulse_edge.errors import ImageError, ParameterError, PulseEdgeError
from pulse_edge.evaluate.ecgbench.ask_model import ModelAsker
from pulse_edge.evaluate.ecgbench.ask_server import Endpoint, ServerAsker
from pulse_edge.evaluate.ecgbench.items import BenchItem

from support.served import served

ITEM = BenchItem("ptb-test", "q", "p.png", "What is the rhythm?", "NORM")
TALK = BenchItem("arena", "a", "p.png", "A?", "", (("What is the rhythm?", "x"), ("Why?", "y")))
Reply = tuple[int, dict[str, str], bytes]
Replier = Callable[[str, Any], Reply]


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "white").save(file, "PNG")
    return file.getvalue()


@contextmanager
def server(replier: Replier) -> Iterator[str]:
    """A server on loopback that answers what a function returns for (path, body)."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: Any) -> None:
            status, headers, data = replier(self.path, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def completion(text: str) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}).encode()


def test_our_server_answers_as_the_model_itself() -> None:
    page = png()
    with pulse_edge.load() as model, served(model) as own:
        asker = ServerAsker.connect(own.url + "/v1", None)
        local = ModelAsker(model, "pulse-nano", "clean")
        for item in (ITEM, TALK):
            reply = asker.ask(item, page)
            assert reply.texts == local.ask(item, page).texts
            assert reply.metadata["fingerprint"] == model.bundle.digest[:16]
        assert asker.predict([ITEM], Path()) is None


def test_a_request_is_greedy_with_the_page_first() -> None:
    bodies = []

    def reply(_path: str, body: Any) -> Reply:
        bodies.append(body)
        return 200, {}, completion(f" answer {len(bodies)} ")

    with server(reply) as url:
        answer = ServerAsker(Endpoint(url), "m").ask(TALK, png())
    assert answer.texts == ("answer 1", "answer 2")
    assert answer.metadata["usage"]["new_tokens"] == 6
    assert [body["max_tokens"] for body in bodies] == [1024, 1024]
    assert [body["temperature"] for body in bodies] == [0, 0]
    content = bodies[0]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert content[1] == {"type": "text", "text": "What is the rhythm?"}
    assert [message["role"] for message in bodies[1]["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(("status", "header", "wait"), [(429, "7", 7), (503, "", 2), (503, "x", 2)])
def test_a_busy_server_is_asked_again(status: int, header: str, wait: float) -> None:
    replies = iter([(status, {"Retry-After": header}, b""), (200, {}, completion("yes"))])
    waits: list[float] = []
    with server(lambda _path, _body: next(replies)) as url:
        answer = ServerAsker(Endpoint(url, sleep=waits.append), "m").ask(ITEM, png())
    assert (answer.texts, waits) == (("yes",), [wait])


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_page_is_that_items_error(status: int) -> None:
    with (
        server(lambda _path, _body: (status, {}, b"no\npicture")) as url,
        pytest.raises(ImageError, match=f"refused it with {status}: no picture"),
    ):
        ServerAsker(Endpoint(url), "m").ask(ITEM, png())


@pytest.mark.parametrize(
    "reply",
    [
        (401, {}, b"no key"),
        (404, {}, b""),
        (500, {}, b"\xff"),
        (302, {"Location": "http://192.0.2.1/"}, b""),
        (200, {}, b"no json"),
        (200, {}, b"{}"),
        (200, {}, b"[]"),
        (200, {}, b'{"choices": []}'),
    ],
)
def test_a_server_that_fails_ends_the_run(reply: Reply) -> None:
    with server(lambda _path, _body: reply) as url, pytest.raises(PulseEdgeError) as caught:
        ServerAsker(Endpoint(url), "m").ask(ITEM, png())
    assert not isinstance(caught.value, ImageError)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://h/v1?key=1", "file:///etc"]
)
def test_a_url_that_is_none_of_http_is_refused(url: str) -> None:
    with pytest.raises(ParameterError, match="must be like http"):
        ServerAsker.connect(url, "m")


def test_an_unreachable_server_is_one_error() -> None:
    with server(lambda _path, _body: (200, {}, b"")) as url:
        pass
    with pytest.raises(PulseEdgeError, match="cannot be reached"):
        ServerAsker.connect(url, "m")


def test_the_model_is_the_first_one_or_one_that_is_there() -> None:
    listed = json.dumps({"data": [{"id": "a"}, {"id": "b"}]}).encode()
    with server(lambda _path, _body: (200, {}, listed)) as url:
        assert ServerAsker.connect(url, None).name == "a"
        assert ServerAsker.connect(url, "b").name == "b"
        with pytest.raises(ParameterError, match="has no model 'c', but a, b"):
            ServerAsker.connect(url, "c")
