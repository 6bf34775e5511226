"""Prompts whose part of the KV cache is kept outside the engine, so that they can come back."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.engines.engine import Engine, SavedCache
from pulse_edge.system import available_memory

SPARE = 2  # a copy is made only if this many times its size is free


@dataclass(frozen=True, eq=False)
class Kept:
    """The cache's content for a prompt's first positions."""

    keys: list[int]
    saved: SavedCache


class KeptCaches:
    """Copies of what sequences held, the least recently used of which go first.

    Args:
        engine: whose cache is copied, unless a call names another of its slots.
        budget: most bytes of all copies; 0 keeps nothing.

    Attributes:
        kept: the copies, the last used one at the end. The tuple is replaced, never changed, so any
            thread may read it.
    """

    def __init__(self, engine: Engine, budget: int) -> None:
        self._engine = engine
        self.budget = budget
        self.kept: tuple[Kept, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(kept.saved.nbytes for kept in self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def best(self, keys: list[int]) -> tuple[Kept | None, int]:
        """The copy that shares most with a prompt, and how many positions it shares."""
        shares = [(shared_length(kept.keys, keys), kept) for kept in self.kept]
        if not shares:
            return None, 0
        shared, kept = max(shares, key=lambda share: share[0])
        return kept, shared

    def keep(self, keys: list[int], engine: Engine | None = None) -> bool:
        """Copy what the engine's cache holds for these keys, its first positions.

        Args:
            keys: of the positions.
            engine: the slot that holds them; None is the engine of these copies.

        Returns:
            Whether they are kept: the engine can copy, and there is room.
        """
        for kept in self.kept:
            if kept.keys[: len(keys)] == keys:
                self._use(kept)
                return True
        engine = engine or self._engine
        size = engine.saved_size(len(keys))
        if not size or size > self.budget or SPARE * size > available_memory():
            return False
        rest = [kept for kept in self.kept if keys[: len(kept.keys)] != kept.keys]
        while sum(kept.saved.nbytes for kept in rest) + size > self.budget:
            del rest[0]
        self.kept = tuple(rest)  # their memory is free before more is taken
        self.kept = (*rest, Kept(list(keys), engine.save(len(keys))))
        return True

    def restore(self, kept: Kept, length: int, engine: Engine | None = None) -> None:
        """Put the first `length` positions of a copy into the engine's cache.

        Args:
            kept: the copy.
            length: positions.
            engine: the slot that gets them; None is the engine of these copies.
        """
        (engine or self._engine).restore(kept.saved, length)
        self._use(kept)

    def forget(self) -> None:
        """Drop all copies."""
        self.kept = ()

    def _use(self, kept: Kept) -> None:
        if kept in self.kept:
            self.kept = (*(other for other in self.kept if other is not kept), kept)


def shared_length(keys: list[int], others: list[int]) -> int:
    """How many positions two lists share from their beginning."""
    limit = min(len(keys), len(others))
    if keys[:limit] == others[:limit]:
        return limit
    return next(i for i in range(limit) if keys[i] != others[i])
