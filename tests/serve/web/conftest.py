"""The page in a real browser, which a session starts once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Driver, browsing, chromium
from support.screen import Screen, on_screen
from support.served import Served


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A headless browser."""
    pytest.importorskip("selenium", reason="the browser is driven by pulse-edge[browser]")
    if chromium() is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    with browsing(str(tmp_path_factory.mktemp("profile"))) as driver:
        yield driver


@pytest.fixture
def screen(driver: Driver, shared: Served) -> Iterator[Screen]:
    """The page of the server that all tests share."""
    with on_screen(driver, shared) as screen:
        yield screen


@pytest.fixture
def png_file(tmp_path: Path, png: bytes) -> Path:
    """A small page as a file, whose name nobody needs to know."""
    path = tmp_path / "Planted Name.png"
    path.write_bytes(png)
    return path
