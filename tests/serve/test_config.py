"""Settings and their ranges, and where a server may listen."""

from __future__ import annotations

import socket
from dataclasses import fields
from typing import Any

import pytest

from pulse_edge.errors import ParameterError
from pulse_edge.serve.config import ServeConfig
from pulse_edge.serve.listener import open_listener, url_of


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1), ("port", 65_536), ("port", "80"), ("queue", -1), ("queue", 5000),
        ("queue", True), ("pages", 0), ("page_seconds", 0), ("max_body_mib", 0),
        ("max_body_mib", 2000), ("body_seconds", 0), ("heartbeat_seconds", 0),
        ("write_seconds", 0), ("drain_seconds", -1), ("drain_seconds", float("nan")),
        ("stuck_seconds", -1), ("stuck_seconds", "never"),
        ("max_connections", 0), ("deadline_s", 0), ("deadline_s", -1), ("host", ""),
        ("name", ""), ("name", "a b"), ("name", "ä"), ("name", "x" * 101), ("name", 'a"b'),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ParameterError, match=f"^{name} is "):
        ServeConfig(**{name: value})


def test_every_setting_says_what_it_is() -> None:
    for setting in fields(ServeConfig):
        assert setting.metadata["help"].endswith((".", "]."))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.1"])
def test_loopback_needs_no_key(host: str) -> None:
    with open_listener(ServeConfig(host=host, port=0)) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener).endswith(f":{port}")
        assert url_of(listener).startswith(("http://127.", "http://[::1]"))


def test_pieces_of_an_answer_do_not_wait_for_acknowledgements() -> None:
    """asyncio turns Nagle's algorithm off for sockets that name TCP, as accepted ones then do."""
    with open_listener(ServeConfig(port=0)) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP


def test_version_6() -> None:
    try:
        listener = open_listener(ServeConfig(host="::1", port=0))
    except ParameterError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert url_of(listener).startswith("http://[::1]:")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "10.0.0.1"])
def test_elsewhere_a_key_is_needed(host: str) -> None:
    with pytest.raises(ParameterError, match="--api-key-file"):
        open_listener(ServeConfig(host=host, port=0))


def test_with_a_key_every_address_will_do() -> None:
    with open_listener(ServeConfig(host="0.0.0.0", port=0, api_key_file="keys")) as listener:
        assert url_of(listener).startswith("http://0.0.0.0:")


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ParameterError, match=f"port {port}"):
            open_listener(ServeConfig(port=port))


@pytest.mark.parametrize("host", ["no such host", "a" * 300, "x\0y", "host.invalid"])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(ParameterError, match="is not known here"):
        open_listener(ServeConfig(host=host, port=0))
