"""Many clients at once, clients that leave, requests that are cancelled: nothing hangs or leaks."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import pulse_edge
from pulse_edge.serve import asking, cart, openai, uploads
from pulse_edge.serve.stages import Stages

from support.paced import Pace, paced
from support.requests import LONG, Q1, Q2
from support.served import SECONDS, Served, about, body, chunks, eventually, served, text_of

ROUTE = "/v1/chat/completions"


def ask_all(url: str, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    """The responses to requests that are all sent at once."""

    async def all_of_them() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=url, timeout=SECONDS, limits=limits, trust_env=False
        ) as client:
            return await asyncio.gather(*(client.post(ROUTE, json=record) for record in bodies))

    return asyncio.run(all_of_them())


def test_200_clients_without_a_limit_all_get_their_answer(nano: pulse_edge.Model) -> None:
    questions = [f"{Q1} {number % 7}" for number in range(200)]
    expected = {q: nano.ask(None, q, max_new_tokens=4).text for q in set(questions)}
    before = threading.active_count()
    with served(nano, queue=256, max_connections=1024) as server:
        responses = ask_all(server.url, [body(q, max_tokens=4) for q in questions])
        assert [r.status_code for r in responses] == [200] * 200
        texts = [r.json()["choices"][0]["message"]["content"] for r in responses]
        assert texts == [expected[q] for q in questions]
        assert threading.active_count() - before < 256 + 10
        assert server.settled()
    assert eventually(lambda: threading.active_count() <= before + 2)


def test_200_clients_beyond_the_queue_are_told_to_wait(nano: pulse_edge.Model) -> None:
    before = threading.active_count()
    with served(nano, queue=4) as server, paced(nano) as pace:
        pace.hold()
        most = []

        def watch() -> None:
            eventually(lambda: pace.steps > 0)
            time.sleep(0.3)
            most.append(threading.active_count())
            pace.go()

        watcher = threading.Thread(target=watch)
        watcher.start()
        responses = ask_all(server.url, [body(Q1, max_tokens=4)] * 200)
        watcher.join()
        counts = Counter(r.status_code for r in responses)
        assert counts.keys() == {200, 429}
        assert counts[200] >= 5, "the running one and the queue"
        for response in responses:
            if response.status_code == 429:
                assert response.headers["x-should-retry"] == "false"
                assert int(response.headers["retry-after"]) >= 1
                assert response.json()["error"]["code"] == "queue_full"
        assert max(most) - before < 20, "threads do not grow with clients"
        assert server.settled()
        assert server.chat(Q1, max_tokens=2).status_code == 200


def run_in_turn(server: Served, pace: Pace, fields: list[dict[str, Any]]) -> list[int]:
    """Send requests one after the other while none can run.

    Args:
        server: that gets them.
        pace: of its model.
        fields: of each request. Later ones have longer questions, by which they are told apart.

    Returns:
        Their numbers in the order in which the engine has run them.
    """

    def ask(number: int) -> None:
        record = body(f"{chr(97 + number)}{' and' * 3 * number}?", max_tokens=3, **fields[number])
        with httpx.Client(base_url=server.url, timeout=SECONDS, trust_env=False) as client:
            client.post(ROUTE, json=record)

    pace.hold()
    with ThreadPoolExecutor(len(fields)) as pool:
        for number in range(len(fields)):
            pool.submit(ask, number)
            queued = number + 1
            assert eventually(lambda n=queued: len(server.model.worker.unfinished) == n)
        pace.go()
    lengths = sorted(pace.prefills)
    assert len(set(lengths)) == len(fields)
    return [lengths.index(length) for length in pace.prefills]


def test_requests_run_in_the_order_in_which_they_came(nano: pulse_edge.Model) -> None:
    with served(nano, queue=32) as server, paced(nano) as pace:
        assert run_in_turn(server, pace, [{}] * 12) == list(range(12))


def test_an_interactive_request_goes_first(nano: pulse_edge.Model) -> None:
    priorities = ["interactive", "background", "background", "interactive"]
    with served(nano, queue=32) as server, paced(nano) as pace:
        assert run_in_turn(server, pace, [{"priority": p} for p in priorities]) == [0, 3, 1, 2]


def test_the_next_answer_is_the_same_after_many_clients_have_left(nano: pulse_edge.Model) -> None:
    rng = random.Random(5)
    expected = nano.ask(None, Q2, max_new_tokens=8).text
    with served(nano) as server:
        for number in range(40):
            record = body(f"{Q1} {number}", max_tokens=40, stream=number % 2 == 0)
            leaving = begin_raw(server, record)
            time.sleep(rng.random() * 0.02)
            leaving.close()
        assert server.settled()
        answer = server.chat(Q2, max_tokens=8).json()
        assert answer["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_engine_within_a_step(
    model: pulse_edge.Model, stream: bool
) -> None:
    with served(model) as server, paced(model) as pace:
        pace.hold()
        leaving = begin_raw(server, body(Q1, max_tokens=LONG, stream=stream))
        assert eventually(lambda: pace.steps == 1)
        leaving.close()
        assert eventually(lambda: any(d.cancelled for d in model.worker.unfinished))
        pace.go()
        assert server.settled()
        assert eventually(lambda: not model.worker.unfinished)
        assert pace.steps <= 2
        answer = server.chat(Q2, max_tokens=8).json()["choices"][0]["message"]["content"]
        assert answer == model.ask(None, Q2, max_new_tokens=8).text


def test_a_client_that_leaves_while_it_waits_is_withdrawn(model: pulse_edge.Model) -> None:
    with served(model) as server, paced(model) as pace:
        pace.hold()
        first = begin_raw(server, body(Q1, max_tokens=3))
        assert eventually(lambda: pace.steps == 1)
        second = begin_raw(server, body(Q2, max_tokens=LONG))
        assert eventually(lambda: len(model.worker.unfinished) == 2)
        second.close()
        assert eventually(lambda: server.service.admission.under_way == 1)
        pace.go()
        assert first.recv(12) == b"HTTP/1.1 200"
        first.close()
        assert pace.steps < 6, "the second one never ran"


def begin_raw(server: Served, record: dict[str, Any]) -> socket.socket:
    """A connection on which a request was sent."""
    port = int(server.url.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    data = json.dumps(record).encode()
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("named", [False, True])
def test_a_request_can_be_cancelled_by_its_id(model: pulse_edge.Model, named: bool) -> None:
    with served(model) as server, paced(model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        headers = {"x-request-id": "cart-7"} if named else {}
        record = body(Q1, max_tokens=LONG)
        future = pool.submit(server.client.post, ROUTE, json=record, headers=headers)
        assert eventually(lambda: pace.steps == 1)
        if named:
            again = httpx.post(server.url + ROUTE, json=record, headers=headers, trust_env=False)
            assert (again.status_code, again.json()["error"]["code"]) == (400, "id_in_use")
        names = ["cart-7"] if named else list(server.service.admission.ids)
        deleted = httpx.delete(f"{server.url}/v1/requests/{names[0]}", trust_env=False)
        assert deleted.json()["cancelled"] is True
        pace.go()
        answer = future.result(SECONDS).json()
        assert answer["pulse_edge"]["finish_reason"] == "cancelled"
        assert answer["choices"][0]["finish_reason"] == "length"
        missing = server.client.delete(f"/v1/requests/{names[0]}")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "request_not_found")


def test_a_waiting_request_that_is_cancelled_says_so(model: pulse_edge.Model) -> None:
    with served(model) as server, paced(model) as pace, ThreadPoolExecutor(2) as pool:
        pace.hold()
        pool.submit(server.client.post, ROUTE, json=body(Q1, max_tokens=3))
        assert eventually(lambda: pace.steps == 1)
        waiting = pool.submit(
            server.client.post, ROUTE, json=body(Q2), headers={"x-request-id": "second"}
        )
        assert eventually(lambda: len(model.worker.unfinished) == 2)
        server.client.delete("/v1/requests/second")
        response = waiting.result(SECONDS)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "cancelled")
        assert response.headers["x-should-retry"] == "false"
        pace.go()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("image", [False, True])
def test_a_request_that_is_cancelled_before_its_work_says_so(
    model: pulse_edge.Model,
    monkeypatch: pytest.MonkeyPatch,
    png: bytes,
    stream: bool,
    image: bool,
) -> None:
    with served(model) as server:
        begin = asking.open_stream

        def late(*request: Any) -> Any:
            server.service.admission.cancel_all()
            return begin(*request)

        monkeypatch.setattr(openai, "open_stream", late)
        response = server.chat(about(png, Q1) if image else Q1, stream=stream)
        assert (response.status_code, response.json()["error"]["code"]) == (409, "cancelled")
        assert server.settled()


@pytest.mark.parametrize("path", ["/v1/pages", "/v1/ecg"])
def test_a_page_that_is_cancelled_before_its_work_says_so(
    model: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch, png: bytes, path: str
) -> None:
    with served(model) as server:
        read = uploads.image_of_bytes

        def late(*given: Any) -> Any:
            server.service.admission.cancel_all()
            return read(*given)

        monkeypatch.setattr(cart, "image_of_bytes", late)
        response = server.client.post(path, files={"file": ("page", png)})
        assert (response.status_code, response.json()["error"]["code"]) == (409, "cancelled")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_work_is_no_failure(
    model: pulse_edge.Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
) -> None:
    caplog.set_level("INFO")
    with served(model) as server:
        begin = asking.open_stream
        reached = threading.Event()

        def late(*request: Any) -> Any:
            reached.set()
            assert eventually(lambda: any(_left(server)))
            return begin(*request)

        monkeypatch.setattr(openai, "open_stream", late)
        record = json.dumps(body(Q1, stream=stream)).encode()
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            head = f"POST {ROUTE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(record)}"
            client.sendall(f"{head}\r\n\r\n".encode() + record)
            assert reached.wait(SECONDS)
        assert server.settled()
        assert eventually(lambda: [line for line in caplog.messages if ROUTE in line])
        told = [json.loads(line) for line in caplog.messages if ROUTE in line]
    assert [(line["status"], line.get("code"), line.get("error")) for line in told] == [
        (499, None, None)
    ]


def _left(server: Served) -> list[bool]:
    admission = server.service.admission
    tickets = [admission.find(name) for name in admission.ids]
    return [ticket.left for ticket in tickets if ticket is not None]


def test_a_waiting_stream_gets_comments(model: pulse_edge.Model) -> None:
    with served(model, heartbeat_seconds=0.05) as server, paced(model) as pace:
        pace.hold()
        threading.Timer(0.4, pace.go).start()
        lines = server.events(Q1, max_tokens=4)
        comments = [line for line in lines if line.startswith(":")]
        assert len(comments) >= 2
        assert all(line.startswith(": waiting") for line in comments)
        assert text_of(chunks(lines)) == model.ask(None, Q1, max_new_tokens=4).text


def test_comments_tell_how_far_the_prefill_is(bundle: Path) -> None:
    stages = Stages()
    model = pulse_edge.load(bundle, threads=1, progress=stages)
    with served(model, heartbeat_seconds=0.05, stages=stages) as server, paced(model) as pace:
        pace.hold()
        threading.Timer(0.3, pace.go).start()
        lines = server.events(Q1, max_tokens=4)
    comments = [line for line in lines if line.startswith(":")]
    assert comments
    assert all(re.fullmatch(r": waiting prefill (\d+)/\1", line) for line in comments)
