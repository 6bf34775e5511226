"""What the fixtures of conftest.py are; a module of its own, because two conftest.py share a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Checkpoints = Callable[..., Path]
Bundles = Callable[..., Path]
