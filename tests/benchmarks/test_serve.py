"""The load generator: against a small server of its own, and once against ours."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("httpx", reason="the load generator needs httpx")
pytest.importorskip("uvicorn", reason="the server of these tests needs uvicorn")

import uvicorn

from benchmarks.serve.__main__ import main
from benchmarks.serve.client import Outcome, open_client, send
from benchmarks.serve.loops import LoopRun, arrival_times, closed_loop, open_loop
from benchmarks.serve.summary import percentiles, rows_of, summarise
from benchmarks.serve.workload import COLD, KINDS, REPEATED, TEXT, Mix, Workload


def events(*deltas: str, tokens: int = 0, ends: bool = True) -> list[bytes]:
    """A stream as a server sends it, each event by itself."""
    records: list[Any] = [{"choices": [{"delta": {"role": "assistant"}}]}]
    records += [{"choices": [{"delta": {"content": delta}}]} for delta in deltas]
    details = {"cached_tokens": 7}
    usage = {"completion_tokens": tokens, "prompt_tokens_details": details}
    records.append({"choices": [], "usage": usage})
    lines = [f"data: {json.dumps(record)}\n\n".encode() for record in records]
    return [b": waiting\n\n", *lines, *([b"data: [DONE]\n\n"] if ends else [])]


class StandIn:
    """An ASGI application that answers in a given time; `failure` is (status, body)."""

    def __init__(self, pause: float = 0.0, failure: tuple[int, bytes] | None = None) -> None:
        self.parts = events("one ", "two ", "three", tokens=3)
        self.pause = pause
        self.failure = failure
        self.bodies: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/models":
            await self._whole(send, 200, b'{"data": [{"id": "stand-in"}]}')
            return
        self.bodies.append(json.loads(body))
        if self.failure:
            await self._whole(send, *self.failure)
            return
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in self.parts:
            await asyncio.sleep(self.pause)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        self.at_once -= 1
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    async def _whole(send: Any, status: int, body: bytes) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(app: StandIn) -> Iterator[str]:
    """The application on a free port of loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def workload(mix: Mix | None = None, **options: Any) -> Workload:
    return Workload(mix or Mix(0, 0, 1), 8, "stand-in", width=60, **options)


def one(app: StandIn, timeout: float = 30.0) -> Outcome:
    """What becomes of one request."""

    async def run(url: str) -> Outcome:
        async with open_client(url, timeout) as client:
            request = next(iter(workload()))
            return await send(client, request, time.perf_counter(), 0.0)

    with serving(app) as url:
        return asyncio.run(run(url))


# ---- requests ------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_requests() -> None:
    first, second, other = (
        [request.body for request in islice(workload(Mix(), seed=seed), 12)] for seed in (1, 1, 2)
    )
    assert first == second != other


def test_kinds_come_as_often_as_the_mix_says() -> None:
    counts = Counter(request.kind for request in islice(workload(Mix(1, 2, 1)), 400))
    assert counts[TEXT] == pytest.approx(100, abs=30)
    assert counts[COLD] == pytest.approx(100, abs=30)
    assert counts[REPEATED] == pytest.approx(200, abs=40)


@pytest.mark.parametrize("run", [0, 5])
def test_a_cold_page_was_never_sent_before(run: int) -> None:
    requests = [*islice(workload(Mix(1, 0, 0), run=run), 5)]
    others = [*islice(workload(Mix(1, 0, 0), run=run + 1), 5)]
    assert len({request.body for request in (*requests, *others)}) == 10


def test_a_repeated_page_is_the_one_before() -> None:
    before: bytes | None = None
    for request in islice(workload(Mix(1, 3, 1)), 50):
        if request.kind == REPEATED:
            assert request.image == before
        before = request.image or before


@pytest.mark.parametrize("weights", [(-1, 2, 2), (0, 0, 0), (np.nan, 1, 1), (np.inf, 1, 1)])
def test_a_mix_that_cannot_be(weights: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Mix(*weights)


def test_requests_carry_what_was_asked_for() -> None:
    (request,) = islice(workload(deadline_s=2.5), 1)
    body = json.loads(request.body)
    expected = {"model": "stand-in", "max_tokens": 8, "deadline_s": 2.5, "stream": True}
    assert expected.items() <= body.items()


def test_arrivals_are_a_poisson_process() -> None:
    times = np.array(arrival_times(5.0, 20_000, seed=3))
    gaps = np.diff(times)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(0.2, rel=0.03)
    assert gaps.std() == pytest.approx(0.2, rel=0.05)  # of an exponential: its mean


# ---- one request ---------------------------------------------------------------------------------


def test_times_of_a_stream() -> None:
    """Neither the comment nor the chunk with the role is the first token."""
    outcome = one(StandIn(pause=0.05))
    assert (outcome.error, outcome.text, outcome.tokens) == ("", "one two three", 3)
    assert outcome.cached == 7
    assert outcome.ttft is not None
    assert outcome.span is not None
    assert outcome.tpot is not None
    assert outcome.ttft >= 0.14  # three pauses
    assert outcome.span >= 0.09
    assert outcome.tpot == pytest.approx(outcome.span / 2)
    assert outcome.end >= outcome.ttft + outcome.span


def test_events_may_come_in_any_pieces() -> None:
    app = StandIn()
    whole = b"".join(app.parts)
    app.parts = [whole[i : i + 7] for i in range(0, len(whole), 7)]
    assert one(app).text == "one two three"


REFUSAL = json.dumps({"error": {"code": "queue_full"}}).encode()


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ((429, REFUSAL), "429 queue_full"),
        ((503, b"no JSON"), "503"),
        ((500, b"[]"), "500"),
    ],
)
def test_a_refusal_is_named(failure: tuple[int, bytes], error: str) -> None:
    outcome = one(StandIn(failure=failure))
    assert outcome.error == error
    assert outcome.ttft is None


def test_a_stream_that_stops_is_incomplete() -> None:
    app = StandIn()
    app.parts = events("one", ends=False)
    assert one(app).error == "incomplete"


def test_an_error_in_a_stream_is_named() -> None:
    app = StandIn()
    app.parts = [*events("one", ends=False), b"data: " + REFUSAL + b"\n\n"]
    assert one(app).error == "stream queue_full"


def test_silence_is_a_timeout() -> None:
    assert one(StandIn(pause=5.0), timeout=0.3).error == "timeout"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def run() -> Outcome:
        async with open_client(f"http://127.0.0.1:{port}", 5) as client:
            return await send(client, next(iter(workload())), time.perf_counter(), 0.0)

    assert asyncio.run(run()).error == "connection ConnectError"


# ---- loops ---------------------------------------------------------------------------------------


def test_an_open_loop_does_not_wait_for_answers() -> None:
    app = StandIn(pause=0.1)

    async def run(url: str) -> LoopRun:
        async with open_client(url, 30) as client:
            return await open_loop(client, iter(workload()), [0.01 * i for i in range(8)])

    with serving(app) as url:
        done = asyncio.run(run(url))
    assert app.most_at_once >= 4
    assert [outcome.due for outcome in done.outcomes] == [0.01 * i for i in range(8)]
    assert all(outcome.late >= 0 for outcome in done.outcomes)


@pytest.mark.parametrize("clients", [1, 3])
def test_a_closed_loop_has_so_many_requests_at_a_time(clients: int) -> None:
    app = StandIn(pause=0.01)
    told: list[int] = []

    async def run(url: str) -> LoopRun:
        async with open_client(url, 30) as client:
            return await closed_loop(client, iter(workload()), clients, 9, told.append)

    with serving(app) as url:
        done = asyncio.run(run(url))
    assert len(done.outcomes) == sum(told) == 9
    assert app.most_at_once <= clients


# ---- figures -------------------------------------------------------------------------------------


def outcome(kind: str = TEXT, end: float = 1.0, error: str = "", late: float = 0.0) -> Outcome:
    ttft = None if error else end / 2
    return Outcome(kind, 0.0, late, error, ttft, end, end / 2, 0.1, 6, 0, "")


def test_figures_of_a_run() -> None:
    outcomes = [outcome(end=1.0), outcome(COLD, 3.0), outcome(error="timeout"), outcome(late=9.0)]
    summary = summarise(LoopRun(outcomes, 2.0), deadline=2.0)
    assert summary["requests"] == 4
    assert summary["throughput"] == 1.5
    assert summary["goodput"] == 1.0
    assert summary["good_share"] == 0.5
    assert summary["errors"] == {"timeout": 1}
    assert summary["late_share"] == 0.25
    assert summary["latencies"][COLD]["end"] == {"p50": 3, "p90": 3, "p99": 3, "count": 1}
    assert summary["latencies"][REPEATED]["end"] == {"count": 0}
    assert summary["latencies"]["all"]["ttft"]["count"] == 3
    assert len(rows_of(summary)) == 1 + 3 * 3  # "all", cold and text


def test_percentiles_of_known_numbers() -> None:
    assert percentiles(range(101)) == {"p50": 50, "p90": 90, "p99": 99, "count": 101}
    assert percentiles([]) == {"count": 0}


# ---- the command ---------------------------------------------------------------------------------


def run_command(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_command_against_a_server(tmp_path: Path) -> None:
    app, file = StandIn(), tmp_path / "new" / "serve.jsonl"
    with serving(app) as url:
        loops = ("--rates", "40,80", "--clients", 2, "--requests", 5, "--width", 60)
        done = run_command(url, *loops, "--deadline", 30, "--enforce", "--append", file)
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text())
    assert [run["requests"] for run in record["runs"]] == [5, 5, 5]
    assert record["served"] == "stand-in"
    assert len(app.bodies) == 15
    assert all(body["deadline_s"] == 30 for body in app.bodies)
    for run in record["runs"]:
        assert run["goodput"] > 0
        assert run["latencies"].keys() == {"all", *KINDS}
    assert "100% complete within 30 s" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "URL"),
        (("http://127.0.0.1:1", "--spawn", "embedded"), "URL"),
        (("http://127.0.0.1:1", "--rates", "0"), "over 0"),
        (("http://127.0.0.1:1", "--clients", "x"), "commas"),
        (("http://127.0.0.1:1", "--mix", "1,2"), "COLD,REPEATED,TEXT"),
        (("http://127.0.0.1:1", "--added", "3"), "--model"),
    ],
)
def test_arguments_that_are_wrong(arguments: tuple[str, ...], message: str) -> None:
    done = run_command(*arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_no_server() -> None:
    done = run_command("http://127.0.0.1:9", "--clients", 1)
    assert done.exit_code == 1
    assert "no models are listed there" in done.output


def test_our_server_answers_as_the_model_does() -> None:
    loops = ("--clients", 2, "--requests", 4, "--width", 200, "--max-tokens", 8)
    done = run_command("--spawn", "embedded", *loops, "--added", 2, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.output[done.output.index('{"kind"') :])
    assert record["runs"][0]["errors"] == {}
    for kind, figures in record["added"].items():
        assert figures["equal_texts"] == 2, kind
        assert figures["ttft"]["added"]["count"] == 2
