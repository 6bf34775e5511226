"""Bodies of requests: read within bounds, and parsed as JSON only if that is cheap."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from starlette.requests import ClientDisconnect, Request

from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.refusals import NO_RETRY, Refusal

MAX_DEPTH = 32  # of arrays and objects
MAX_STRUCTURE = 256 << 10  # bytes of a body outside of its strings
MAX_KEYS = 256  # of an object
MAX_QUOTES = 100_000  # of a body
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_OPENING = b"[{"
_CLOSING = b"]}"


async def read_body(request: Request, config: ServeConfig) -> bytes:
    """All bytes of a body.

    Args:
        request: whose body nobody has read.
        config: of the server, which has the limits.

    Raises:
        Refusal: the body is too large or too slow.
        ClientDisconnect: the client has left.
    """
    most = config.max_body_bytes
    declared = request.headers.get("content-length", "0")
    if len(declared) > 15 or not declared.isdigit() or int(declared) > most:
        raise _too_large(config)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(config.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise _too_large(config)
                parts.append(part)
    except TimeoutError:
        raise Refusal(
            f"the body did not arrive within {config.body_seconds:g} s", 408, "body_timeout",
            headers=NO_RETRY | {"connection": "close"},
        ) from None  # fmt: skip
    return b"".join(parts)


async def discard_body(request: Request, config: ServeConfig) -> None:
    """Read what is left of a body, up to the limits, and drop it.

    A response to a request that was read by half is lost: the kernel resets a connection that is
    closed with unread bytes.
    """
    size = 0
    try:
        async with asyncio.timeout(config.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > 2 * config.max_body_bytes:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read already
        return


def _too_large(config: ServeConfig) -> Refusal:
    return Refusal(
        f"the body is over the {config.max_body_mib} MiB accepted; send a smaller image",
        413, "body_too_large", headers={"connection": "close"},
    )  # fmt: skip


def parse_json_body(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Args:
        body: UTF-8.

    Raises:
        Refusal: it is not JSON, nested too deeply, has too many parts, or a key twice.
    """
    _check_structure(body)
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        # The error's text could quote the body.
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise Refusal(f"the body is not valid JSON{where}; send one object", 400, "json") from None
    if b"\\" in body and _SURROGATE.search(body) and not _is_text(value):
        raise Refusal("the body has half a character (a lone surrogate); send text", 400, "json")
    if not isinstance(value, dict):
        raise Refusal(f"the body is a JSON {type(value).__name__}; send one object", 400, "json")
    return value


def _check_structure(body: bytes) -> None:
    """Refuse a body that would take much memory or depth to parse, without parsing it."""
    outside = _outside_strings(body)
    if len(outside) > MAX_STRUCTURE:
        raise Refusal(
            f"the body has over {MAX_STRUCTURE >> 10} KiB outside of strings; send less",
            400, "json_size",
        )  # fmt: skip
    depth = 0
    for byte in outside:
        if byte in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                raise Refusal(
                    f"the body is nested deeper than {MAX_DEPTH} levels", 400, "json_depth"
                )
        elif byte in _CLOSING:
            depth -= 1


def _outside_strings(body: bytes) -> bytes:
    """What is left of JSON without the content of its strings; all of it if they are too many.

    It looks for quotes by `bytes.split`, because an image in base64 is one string of half a
    megabyte: a regular expression takes a millisecond for that, which every answer would wait for.
    """
    parts = body.split(b'"', MAX_QUOTES + 1)
    if len(parts) > MAX_QUOTES + 1:
        return body
    left: list[bytes] = []
    inside = False
    for part in parts:
        if inside:
            backslashes = len(part) - len(part.rstrip(b"\\"))
            inside = backslashes % 2 == 1  # then the quote that follows is part of the string
        else:
            left.append(part)
            inside = True
    return b'"'.join(left)


def _is_text(value: Any) -> bool:
    """Whether all texts of a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. A key that stands twice would mean what the reader happens to take."""
    if len(pairs) > MAX_KEYS:
        raise Refusal(f"an object of the body has over {MAX_KEYS} keys", 400, "json_size")
    record = dict(pairs)
    if len(record) != len(pairs):
        raise Refusal("an object of the body has a key twice; send it once", 400, "json")
    return record


def _no_constant(_name: str) -> float:
    raise Refusal("the body has a number that JSON does not know (NaN or Infinity)", 400, "json")
