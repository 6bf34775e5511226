"""The `pulse-edge` command.

`main` is its entry point. Every other module here is a command or serves them. The group of all
commands is imported when somebody asks for it, because `main` must be ready before that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pulse_edge.cli.main import main

if TYPE_CHECKING:
    from pulse_edge.cli.options import numbers
    from pulse_edge.cli.registry import cli

__all__ = ["cli", "main", "numbers"]

_HOMES = {"cli": "registry", "numbers": "options"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pulse_edge.cli.{_HOMES[name]}"), name)
