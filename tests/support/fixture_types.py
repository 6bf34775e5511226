"""The types of the fixtures in conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Checkpoints = Callable[..., Path]
Bundles = Callable[..., Path]
