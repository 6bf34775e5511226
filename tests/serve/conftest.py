"""A server over the embedded model, shared by a module's tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("starlette", reason="serving needs pulse-edge[server]")
pytest.importorskip("uvicorn", reason="serving needs pulse-edge[server]")

import pulse_edge

from support.requests import encoded
from support.served import Served, served


@pytest.fixture(scope="session")
def nano() -> pulse_edge.Model:
    """The embedded model."""
    return pulse_edge.load(threads=1)


@pytest.fixture(scope="session")
def shared(nano: pulse_edge.Model) -> Iterator[Served]:
    """A server with its defaults."""
    with served(nano) as server:
        yield server


@pytest.fixture(scope="session")
def png() -> bytes:
    """A small page."""
    grid = np.full((120, 160, 3), 255, np.uint8)
    grid[::8] = grid[:, ::8] = (255, 200, 200)
    grid[60:62] = 0
    return encoded(grid, "PNG")
