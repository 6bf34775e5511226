"""The page at `/`, and the policy that keeps it from loading anything."""

from __future__ import annotations

import base64
import hashlib

import pytest

from pulse_edge.serve import browser

from support.served import Served

PAGE = b"<html><style>a{}</style><script type='module'>go()</script><script>\n1\n</script></html>"


def digest(text: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


def test_a_policy_allows_what_is_in_the_page() -> None:
    policy = browser.content_policy(PAGE)
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    assert (
        parts["script-src"] == f"{digest(b'go()')} {digest(chr(10).encode() + b'1' + b'%c' % 10)}"
    )
    assert parts["style-src"] == digest(b"a{}")
    assert parts["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_page_without_scripts() -> None:
    assert "script-src 'none'; style-src 'none'" in browser.content_policy(b"<html></html>")


def test_the_page_is_served_with_its_policy(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "web_page", lambda: PAGE)
    response = shared.client.get("/")
    assert response.status_code == 200
    assert response.content == PAGE
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == browser.content_policy(PAGE)
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_build_without_a_page(shared: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "web_page", lambda: None)
    response = shared.client.get("/")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
