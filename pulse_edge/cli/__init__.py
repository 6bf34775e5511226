"""The `pulse-edge` command.

`main` is its entry point. Every other module here is a command or serves them.
"""

from __future__ import annotations

from pulse_edge.cli.main import cli, main
from pulse_edge.cli.options import numbers

__all__ = ["cli", "main", "numbers"]
