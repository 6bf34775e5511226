"""The page as a file: it needs nothing else, and its policy lets it run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pulse_edge.bundle.manifest import NOTICE
from pulse_edge.serve.browser import content_policy, web_page

LOADS = {"src", "href", "srcset", "action", "formaction", "data", "poster", "ping", "background"}


@pytest.fixture(scope="module")
def html() -> str:
    page = web_page()
    assert page is not None
    return page.decode("utf-8")


class Reader(HTMLParser):
    """Collects what a page has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._id = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id") or self._id

    def handle_data(self, data: str) -> None:
        self.texts[self._id] = self.texts.get(self._id, "") + data


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_the_notice_is_there_before_any_script_runs(read: Reader) -> None:
    assert read.texts["notice"].strip() == NOTICE


def test_nothing_is_loaded_from_anywhere(html: str, read: Reader) -> None:
    loads = [value for _, attrs in read.tags for name, value in attrs.items() if name in LOADS]
    assert loads == ["data:,"]  # no icon, which browsers would ask the server for
    for word in ("http://", "https://", "//cdn", "@import", "url(", "import(", "WebSocket"):
        assert word not in html


def test_a_policy_without_exceptions_lets_it_run(html: str, read: Reader) -> None:
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert [tag for tag, _ in read.tags].count("style") == 1
    attributes = {name for _, attrs in read.tags for name in attrs}
    assert "style" not in attributes
    assert not {name for name in attributes if name.startswith("on")}
    assert content_policy(html.encode()).count("'sha256-") == 2
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in html


def test_nothing_is_kept_in_the_browser(html: str) -> None:
    for word in ("localStorage", "sessionStorage", "indexedDB", "cookie", "caches.", "history."):
        assert word not in html


def test_every_id_that_the_script_uses_is_there_once(html: str, read: Reader) -> None:
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\bat\("([\w-]+)"\)', html)) <= set(ids)


def test_its_language_and_its_width_are_said(read: Reader) -> None:
    tags = dict(read.tags)
    assert tags["html"]["lang"] == "en"
    named = {attrs.get("name"): attrs.get("content") for tag, attrs in read.tags if tag == "meta"}
    assert named["viewport"] == "width=device-width, initial-scale=1"  # zoom is not forbidden
    assert named["color-scheme"] == "light dark"
