"""Keys, hosts and origins, and what every response has."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

import pulse_edge

from support.requests import Q1
from support.served import Served, body, served

KEY, OTHER = "k" * 20, "another-key-0123456789"
PATHS = ("/v1/models", "/v1/models/pulse-nano", "/ready", "/metrics", "/v1/pages/x", "/nowhere")


@pytest.fixture(scope="module")
def keyed(nano: pulse_edge.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"# of the carts\n{KEY}\n\n{OTHER}\n")
    with served(nano, api_key_file=str(path)) as server:
        yield server


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer x", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Basic {KEY}", KEY],
)
def test_everything_but_a_sign_of_life_needs_a_key(keyed: Served, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header}
    for path in PATHS:
        response = keyed.client.get(path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/pages", "/v1/ecg", "/health", "/"])
def test_posts_need_a_key(keyed: Served, path: str) -> None:
    assert keyed.client.post(path, content=b"x" * 100_000).status_code == 401


def test_a_sign_of_life_needs_none(keyed: Served) -> None:
    assert keyed.client.get("/health").status_code == 200
    assert keyed.client.get("/").status_code in (200, 404)


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_each_key_opens(keyed: Served, key: str) -> None:
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} {key}"}
        assert keyed.client.get("/v1/models", headers=headers).status_code == 200


def test_with_a_key_any_name_of_the_machine_will_do(keyed: Served) -> None:
    headers = {"authorization": f"Bearer {KEY}", "host": "cart-7.hospital.example"}
    assert keyed.client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"])
def test_names_of_loopback(shared: Served, host: str) -> None:
    assert shared.client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example"])
def test_a_name_that_somebody_pointed_here_is_refused(shared: Served, host: str) -> None:
    response = shared.client.get("/v1/models", headers={"host": host})
    assert (response.status_code, response.json()["error"]["code"]) == (421, "unknown_host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "x"])
def test_pages_of_others_are_refused(shared: Served, origin: str) -> None:
    for headers in ({"origin": origin}, {"origin": origin, "content-type": "text/plain"}):
        response = shared.client.post("/v1/chat/completions", json=body(Q1), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in response.headers


def test_our_own_page_may_ask(shared: Served) -> None:
    response = shared.client.get("/v1/models", headers={"origin": shared.url})
    assert response.status_code == 200


def test_what_every_response_has(shared: Served) -> None:
    for response in (
        shared.client.get("/v1/models"),
        shared.client.get("/nowhere"),
        shared.chat(Q1, temperature=-1),
        shared.chat(Q1, max_tokens=1),
    ):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers


def test_a_request_has_an_id_of_ours(shared: Served) -> None:
    headers = {"x-request-id": "Jane.Doe"}
    response = shared.client.post(
        "/v1/chat/completions", json=body(Q1, max_tokens=1), headers=headers
    )
    assert response.json()["id"] == f"chatcmpl-{response.headers['x-request-id']}"
    assert "Jane" not in response.text
    for name in ("", "a b", "a/b", "é", "x" * 65):
        wrong = httpx.post(
            f"{shared.url}/v1/chat/completions",
            json=body(Q1),
            headers=[(b"x-request-id", name.encode())],
            trust_env=False,
        )
        assert wrong.json()["error"]["code"] == "invalid_request_id"


def test_a_failure_of_ours_says_nothing(
    nano: pulse_edge.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Jane Doe, /home/jane/ecg.png")

    with served(nano) as server:
        monkeypatch.setattr(nano, "stream", fail)
        for stream in (False, True):
            response = server.chat(Q1, stream=stream)
            assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
            assert "ane" not in response.text
            assert response.headers["x-should-retry"] == "false"
        monkeypatch.undo()
        assert server.chat(Q1, max_tokens=1).status_code == 200


def test_a_body_that_is_too_large(nano: pulse_edge.Model) -> None:
    with served(nano, max_body_mib=1) as server:
        large = b"x" * ((1 << 20) + 1)
        declared = server.client.post("/v1/chat/completions", content=large)
        parts = iter([large[:1000], large[1000:]])
        undeclared = server.client.post("/v1/ecg", content=parts)
        for response in (declared, undeclared):
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "body_too_large"
        assert server.settled()
        at_the_limit = server.client.post("/v1/pages", content=large[:-1])
        assert at_the_limit.json()["error"]["code"] == "invalid_image"


def test_a_body_that_does_not_come(nano: pulse_edge.Model) -> None:
    with served(nano, body_seconds=0.2) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            answer = b""
            while part := connection.recv(4096):
                answer += part
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"x-should-retry: false" in answer
        assert server.settled()
