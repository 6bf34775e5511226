"""Comments of a stream that waits, as often as its client wants them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.paced import paced
from support.requests import Q1
from support.served import Served, body, chunks, eventually, text_of

ROUTE = "/v1/chat/completions"


@pytest.mark.parametrize("seconds", [0.1, 0.2])
def test_a_client_says_how_often(shared: Served, seconds: float) -> None:
    record = body(Q1, stream=True, max_tokens=4, stream_options={"heartbeat_s": seconds})
    expected = shared.model.ask(None, Q1, max_new_tokens=4).text
    with paced(shared.model) as pace, ThreadPoolExecutor(1) as pool:
        pace.hold()
        pool.submit(shared.model.ask, None, Q1, max_new_tokens=2)
        assert eventually(lambda: pace.steps == 1)
        with shared.client.stream("POST", ROUTE, json=record) as response:
            lines = response.iter_lines()
            read = [next(lines) for _ in range(8)]  # each comment is followed by an empty line
            pace.go()
            read += lines
    assert sum(line.startswith(": waiting") for line in read) >= 3
    assert text_of(chunks([line for line in read if line])) == expected


@pytest.mark.parametrize("value", [0, 0.09, -1, 3601, True, "1", [1], 1e400])
def test_how_often_has_a_range(shared: Served, value: Any) -> None:
    text = '{"messages": [{"role": "user", "content": "x"}], "stream": true, "max_tokens": 1,'
    text += f' "stream_options": {{"heartbeat_s": {_json(value)}}}}}'
    response = shared.client.post(ROUTE, content=text)
    assert response.status_code == 400
    assert response.json()["error"]["param"] in ("stream_options.heartbeat_s", None)


def _json(value: Any) -> str:
    if value == 1e400:
        return "1e400"
    return {True: "true", "1": '"1"'}.get(value, str(value)) if value != [1] else "[1]"


def test_none_is_the_servers_setting(shared: Served) -> None:
    lines = shared.events(Q1, max_tokens=2, stream_options={"heartbeat_s": None})
    assert text_of(chunks(lines)) == shared.model.ask(None, Q1, max_new_tokens=2).text
