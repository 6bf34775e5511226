"""How much of a recording's file may be read before it is called hostile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# 90 minutes of 12 leads at 500 Hz. Reading takes up to four times as much memory.
MAX_BYTES = 64 << 20


class ParseBudget:
    """How many elements and items may still be read, and how deep sequences may nest.

    Both bound the time that a hostile file takes.
    """

    def __init__(self, left: int = 100_000, depth: int = 16) -> None:
        self._left = left
        self._depth = depth

    def spend(self) -> None:
        """Count an element or an item.

        Raises:
            ValueError: there were too many.
        """
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many elements")

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Count a level of sequences.

        Raises:
            ValueError: there are too many.
        """
        self._depth -= 1
        if self._depth < 0:
            raise ValueError("sequences nest too deep")
        yield
        self._depth += 1
