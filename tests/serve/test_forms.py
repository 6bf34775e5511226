"""Multipart forms: fields and files in memory, and bodies that are none."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pulse_edge.serve.forms import MAX_PARTS, Form, read_form
from pulse_edge.serve.refusals import Refusal

LEGAL = ("file", "panel", "question")


def form(**fields: Any) -> tuple[bytes, str]:
    """A body as a client makes it, and its type."""
    request = httpx.Request("POST", "http://x", files=fields)
    return request.read(), request.headers["content-type"]


def test_texts_and_files() -> None:
    body, kind = form(
        file=("Jane Doe.png", b"\r\n--\x00\xff", "image/png"),
        panel=("p.toml", b"toml"),
        question=(None, "Wie schnell? \u2764"),
    )
    assert read_form(body, kind, LEGAL) == Form(
        {"question": "Wie schnell? \u2764"}, {"file": b"\r\n--\x00\xff", "panel": b"toml"}
    )


def test_a_panel_may_be_a_name() -> None:
    body, kind = form(file=(None, b"data"), panel=(None, "resting"))
    assert read_form(body, kind, LEGAL) == Form({"panel": "resting"}, {"file": b"data"})


BOUNDARY = b"xyz"
TYPE = "multipart/form-data; boundary=xyz"


def part(head: bytes, data: bytes = b"a") -> bytes:
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def named(name: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"'


END = b"--" + BOUNDARY + b"--\r\n"
QUESTION = part(named(b"question"))


def test_a_plain_body() -> None:
    assert read_form(QUESTION + END, TYPE, LEGAL).texts == {"question": "a"}
    lower = QUESTION.replace(b"Content-Disposition", b"content-disposition")
    assert read_form(lower + END, TYPE, LEGAL).texts == {"question": "a"}


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=",
     "multipart/mixed; boundary=xyz", "application/x-www-form-urlencoded", "a" * 999],
)  # fmt: skip
def test_another_type(kind: str) -> None:
    with pytest.raises(Refusal) as error:
        read_form(QUESTION + END, kind, LEGAL)
    assert (error.value.status, error.value.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", TYPE),
        (b"hello", TYPE),
        (QUESTION, TYPE),
        ((QUESTION + END)[:-6], TYPE),
        (QUESTION + END, "multipart/form-data; boundary=other"),
        (QUESTION + END, f"multipart/form-data; boundary={'x' * 1000}"),
        (part(b"no header") + END, TYPE),
        (part(b"Content-Type: text/plain") + END, TYPE),
        (part(b'Content-Disposition: form-data; filename="a"') + END, TYPE),
        (part(named(b"patient")) + END, TYPE),
        (part(named(b"question"), b"\xff\xfe") + END, TYPE),
        (part(named(b"question"), b"a" * 70_000) + END, TYPE),
        (QUESTION + QUESTION + END, TYPE),
        (part(named(b"file")) * 2 + END, TYPE),
        (b"".join(part(named(b"%d" % n)) for n in range(MAX_PARTS + 1)) + END, TYPE),
        (part(b"A: b\r\n" * 100 + named(b"question")) + END, TYPE),
        (part(b"X-Long: " + b"a" * 100_000) + END, TYPE),
    ],
)
def test_what_is_no_form(body: bytes, kind: str) -> None:
    with pytest.raises(Refusal) as error:
        read_form(body, kind, LEGAL)
    assert (error.value.status, error.value.code) == (400, "invalid_form")
