"""How something that runs for seconds tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

# (stage, amount done since the last call, amount in all); what runs for seconds calls one, so that people can be shown
Progress = Callable[[str, int, int], None]
