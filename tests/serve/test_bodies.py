"""JSON bodies: what is parsed, and what is refused before it costs anything."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from typing import Any

import pytest

from pulse_edge.serve.bodies import MAX_DEPTH, parse_json_body
from pulse_edge.serve.refusals import Refusal


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [1, 2.5, None, True, {"b": "c"}]},
        {"a": 'quotes " and \\ and [[[[ and {"x"'},
        {"ü": "\u2028 😀"},
        {"a": "[" * 1000},
        {str(n): n for n in range(256)},
    ],
)
def test_an_object(value: dict[str, Any]) -> None:
    assert parse_json_body(json.dumps(value).encode()) == value
    assert parse_json_body(json.dumps(value, ensure_ascii=False).encode()) == value


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return f'{{"a": {opening * depth}1{closing * depth}}}'.encode()


def test_depth() -> None:
    assert parse_json_body(nested(MAX_DEPTH - 1))
    for body in (
        nested(MAX_DEPTH),
        nested(100_000),
        nested(MAX_DEPTH, '{"a":', "}"),
        b"[" * 200_000,
        b'{"a":' * 5000,
    ):
        with pytest.raises(Refusal) as error:
            parse_json_body(body)
        assert error.value.code == "json_depth"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "json"),
        (b"{", "json"),
        (b'{"a": 1', "json"),
        (b'{"a": 1}}', "json"),
        (b"{'a': 1}", "json"),
        (b'{"a": "b}', "json"),
        (b'{"a": "\xff"}', "json"),
        (b'{"a": 1, "a": 2}', "json"),
        (b'{"a": {"b": 1, "b": 1}}', "json"),
        (b'{"a": NaN}', "json"),
        (b'{"a": -Infinity}', "json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "json"),
        (b"[]", "json"),
        (b'"a"', "json"),
        (b"1", "json"),
        (b"null", "json"),
        (b"\xef\xbb\xbf{}", "json"),
        (b'{"a": "\\ud800"}', "json"),
        (b'{"a": ["\\uDC00\\uD800"]}', "json"),
        (b'{"\\udfff": 1}', "json"),
        (b'{"a": [' + b"[]," * 100_000 + b"1]}", "json_size"),
        (json.dumps({str(n): n for n in range(257)}).encode(), "json_size"),
    ],
)
def test_what_is_no_object(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as error:
        parse_json_body(body)
    assert (error.value.status, error.value.code) == (400, code)


def test_an_error_does_not_quote_the_body() -> None:
    for body in (b'{"a": "Jane Doe}', b'{"a": Jane Doe}', b'{"Jane Doe": 1, "Jane Doe": 2}'):
        with pytest.raises(Refusal) as error:
            parse_json_body(body)
        assert "Jane" not in str(error.value)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + b"A" * (8 << 20) + b'"}',
        b'{"a": "' + b"\\/" * (4 << 20) + b'"}',
        b'{"a": "' + b"A" * (8 << 20),  # the string has no end
        b'"' * (8 << 20),
        b'{"a": "' + b"\\" * (8 << 20),
    ],
)
def test_long_strings_cost_little(body: bytes) -> None:
    tracemalloc.start()
    begun = time.process_time()
    with contextlib.suppress(Refusal):
        parse_json_body(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begun < 5
    assert peak < 6 * len(body)
