"""How work that takes seconds reports how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called with (name of the stage, amount done since the last call, amount in all). An amount of 0
# announces a stage. The unit is the stage's own: bytes, tokens, repetitions.
Progress = Callable[[str, int, int], None]
