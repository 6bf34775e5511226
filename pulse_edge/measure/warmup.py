"""How long a measurement warms up: until two repetitions in a row take about as long."""

from __future__ import annotations

from collections.abc import Sequence

STABLE = 0.05  # by how much, as a fraction, two repetitions may differ
PATIENCE = 30.0  # seconds of warm-up after which it ends anyway


def is_stable(seconds: Sequence[float]) -> bool:
    """Whether the last two repetitions took about as long."""
    return len(seconds) > 1 and abs(seconds[-1] / seconds[-2] - 1) < STABLE


def is_warm(seconds: Sequence[float], least: int, most: int) -> bool:
    """Whether a warm-up may end.

    Args:
        seconds: of its repetitions so far.
        least: repetitions; 0 for no warm-up at all.
        most: repetitions; `least` counts if it is more.
    """
    if len(seconds) < least:
        return False
    enough = least == 0 or len(seconds) >= most or sum(seconds) > PATIENCE
    return enough or is_stable(seconds)
