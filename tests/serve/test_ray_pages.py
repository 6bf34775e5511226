"""Which page a request is about, and which replica keeps it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from pulse_edge.serve.ray_pages import KnownPages, PageHomes

FILE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
NAME = hashlib.sha256(FILE).hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()
BASE64 = base64.b64encode(FILE).decode()


def scope(method: str = "POST", path: str = "/v1/ecg", kind: str = "") -> dict[str, Any]:
    return {"method": method, "path": path, "headers": [(b"Content-Type", kind.encode())]}


def conversation(url: str, *turns: str) -> bytes:
    image = {"type": "image_url", "image_url": {"url": url}}
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Rate?"}, image]}]
    messages += [{"role": "user", "content": turn} for turn in turns]
    return json.dumps({"model": "m", "messages": messages}).encode()


def form(fields: dict[str, bytes], boundary: str = "xyz") -> bytes:
    body = b""
    for name, content in fields.items():
        disposition = f'form-data; filename="name=.png"; name="{name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n\r\n"
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


CHAT = conversation(f"data:image/png;base64,{BASE64}")
BODIES = {
    "a data URL": ("application/json", CHAT),
    "another media type": ("application/json", conversation(f"data:IMAGE/X-y;a=b;base64,{BASE64}")),
    "later turns": ("application/json", conversation(f"data:image/png;base64,{BASE64}", "More?")),
    "escaped slashes": ("application/json", CHAT.replace(b"/", b"\\/")),
    "spaces": ("application/json; charset=utf-8", json.dumps(json.loads(CHAT), indent=4).encode()),
    "lines": (
        "application/json",
        conversation(f"data:image/png;base64,{BASE64[:9]}\n{BASE64[9:]}"),
    ),
    "no spaces": ("Application/JSON", json.dumps(json.loads(CHAT), separators=(",", ":")).encode()),
    "a file": ("image/png", FILE),
    "a file of no kind": ("", FILE),
    "a form": ("multipart/form-data; boundary=xyz", form({"question": b"Rate?", "file": FILE})),
    "a form, quoted": ('multipart/form-data; boundary="x y"', form({"file": FILE}, "x y")),
    "a form with the number of a page": (
        "multipart/form-data; boundary=xyz",
        form({"page": b"2", "file": FILE}),
    ),
    "a form that goes on": (
        "Multipart/form-data; boundary=xyz",
        form({"file": FILE, "panel": b"p"}),
    ),
}


@pytest.mark.parametrize("case", BODIES)
def test_equal_files_have_one_name(case: str) -> None:
    kind, body = BODIES[case]
    assert KnownPages().name(scope(kind=kind), body) == NAME


NO_PAGE = {
    "text": ("application/json", json.dumps({"messages": []}).encode()),
    "not JSON": ("application/json", b"\xff{"),
    "a URL": ("application/json", conversation("https://example.org/a.png")),
    "a form without a file": ("multipart/form-data; boundary=xyz", form({"question": b"?"})),
    "a form without a boundary": ("multipart/form-data", form({"file": FILE})),
}


@pytest.mark.parametrize("case", NO_PAGE)
def test_requests_without_a_page_have_names_of_their_own(case: str) -> None:
    kind, body = NO_PAGE[case]
    pages = KnownPages()
    names = {pages.name(scope(kind=kind), body) for _ in range(3)}
    assert len(names) == 3
    assert NAME not in names


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/metrics", "/"])
def test_what_any_replica_answers_has_no_name(path: str) -> None:
    assert KnownPages().name(scope("GET", path), b"") == ""


def test_an_id_leads_to_the_file_it_was_given_for() -> None:
    pages = KnownPages()
    pages.learn(NAME, json.dumps({"id": OTHER, "predicted_s": 3.5}).encode())
    kind = "multipart/form-data; boundary=xyz"
    assert pages.name(scope("GET", f"/v1/pages/{OTHER}"), b"") == NAME
    assert pages.name(scope("DELETE", f"/v1/pages/{OTHER}"), b"") == NAME
    assert pages.name(scope(kind=kind), form({"page": OTHER.encode()})) == NAME


@pytest.mark.parametrize(
    "reply", [b"", b"[", b"[]", b"{}", b'{"id": 3}', b'{"id": "../x"}', b"\xff", b"[" * 9999]
)
def test_a_reply_without_an_id_teaches_nothing(reply: bytes) -> None:
    pages = KnownPages()
    pages.learn(NAME, reply)
    assert pages.name(scope("GET", f"/v1/pages/{OTHER}"), b"") == OTHER


@pytest.mark.parametrize("path", ["/v1/requests/abc-1", "/v1/requests/chatcmpl-abc-1"])
def test_a_request_is_cancelled_where_it_runs(path: str) -> None:
    pages = KnownPages()
    pages.note("abc-1", NAME)
    assert pages.name(scope("DELETE", path), b"") == NAME


def test_the_oldest_ids_are_forgotten() -> None:
    pages = KnownPages(most=2)
    for number in (1, 2, 1, 3):
        pages.note(f"r{number}", f"page {number}")
    names = [pages.name(scope("DELETE", f"/v1/requests/r{n}"), b"") for n in (1, 2, 3)]
    assert names == ["page 1", "r2", "page 3"]


REPLICAS = ["a", "b", "c"]


@pytest.mark.parametrize("page", ["", "new"])
def test_all_replicas_are_asked_for_a_new_page_and_for_none(page: str) -> None:
    homes = PageHomes()
    homes.settle("", "b")
    assert homes.ranks(page, REPLICAS) == [REPLICAS]


@pytest.mark.parametrize("home", REPLICAS)
def test_a_page_stays_where_it_is(home: str) -> None:
    homes = PageHomes()
    homes.settle("page", home)
    homes.settle("another", "c")
    first, others = homes.ranks("page", REPLICAS)
    assert first == [home]
    assert sorted([*first, *others]) == REPLICAS


def test_a_page_moves_when_its_replica_is_gone_or_full() -> None:
    homes = PageHomes()
    homes.settle("page", "b")
    assert homes.ranks("page", ["a", "c"]) == [["a", "c"]]
    homes.settle("page", "c")
    assert homes.ranks("page", REPLICAS) == [["c"], ["a", "b"]]
    assert homes.ranks("page", ["c"]) == [["c"]]


def test_pages_that_were_asked_about_longest_ago_are_forgotten() -> None:
    homes = PageHomes(most=2)
    for page in ("1", "2", "1", "3"):
        homes.settle(page, "a")
    assert [len(homes.ranks(page, REPLICAS)) for page in ("1", "2", "3")] == [2, 1, 2]
