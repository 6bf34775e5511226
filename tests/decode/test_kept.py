"""Copies of a cache: the longest match comes back, the least recently used go first."""

from __future__ import annotations

from typing import Any

import pytest

from pulse_edge.decode import kept
from pulse_edge.decode.kept import KeptCaches, shared_length
from pulse_edge.engines.engine import SavedCache

POSITION = 10  # bytes


class Copier:
    """The part of an engine that copies."""

    def __init__(self) -> None:
        self.restored: list[tuple[Any, int]] = []

    def saved_size(self, length: int) -> int:
        return POSITION * length

    def save(self, length: int) -> SavedCache:
        return SavedCache(POSITION * length, f"copy of {length}")

    def restore(self, saved: SavedCache, length: int) -> None:
        self.restored.append((saved.content, length))


def caches(budget: int, copier: Copier | None = None) -> KeptCaches:
    engine: Any = copier or Copier()
    return KeptCaches(engine, budget)


@pytest.mark.parametrize(
    ("keys", "others", "shared"),
    [
        ([], [], 0),
        ([1, 2], [], 0),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], [1, 2], 2),
        ([1, 2, 3], [1, 9, 3], 1),
        ([4], [5], 0),
    ],
)
def test_what_two_lists_share(keys: list[int], others: list[int], shared: int) -> None:
    assert shared_length(keys, others) == shared


def test_the_longest_match_comes_back() -> None:
    engine = Copier()
    held = caches(1000, engine)
    assert held.best([1, 2]) == (None, 0)
    assert held.keep([1, -5, -5])
    assert held.keep([1, -6, -6, -6])
    found, shared = held.best([1, -6, -6, 7])
    assert found is not None
    assert (found.keys, shared) == ([1, -6, -6, -6], 3)
    assert (len(held), held.nbytes) == (2, 70)
    held.restore(found, 3)
    assert engine.restored == [("copy of 4", 3)]


def test_a_longer_copy_takes_a_shorter_one_s_place() -> None:
    held = caches(1000)
    assert held.keep([1, -5])
    assert held.keep([1, -5, -5])
    assert [one.keys for one in held.kept] == [[1, -5, -5]]
    assert held.keep([1, -5])  # is part of it
    assert [one.keys for one in held.kept] == [[1, -5, -5]]


def test_the_least_recently_used_go_first() -> None:
    held = caches(100)
    for page in (-1, -2, -3):
        assert held.keep([page] * 3)
    first, _ = held.best([-1])
    assert first is not None
    held.restore(first, 3)
    assert held.keep([-4] * 3)
    assert [one.keys[0] for one in held.kept] == [-3, -1, -4]
    assert held.keep([-3] * 3)  # known, and used
    assert held.keep([-5] * 6)
    assert [one.keys[0] for one in held.kept] == [-3, -5]
    held.forget()
    assert (len(held), held.nbytes) == (0, 0)


def test_memory_is_freed_before_more_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a copy is made, it and the others are within the budget."""
    held = caches(100)
    most: list[int] = []
    save = Copier.save

    def counted(engine: Copier, length: int) -> SavedCache:
        most.append(held.nbytes + POSITION * length)
        return save(engine, length)

    monkeypatch.setattr(Copier, "save", counted)
    for page in (-1, -2, -3, -4, -5):
        assert held.keep([page] * 4)
    assert most == [40, 80, 80, 80, 80]


@pytest.mark.parametrize(
    ("budget", "free", "fits"),
    [(30, 1000, True), (29, 1000, False), (0, 1000, False), (100, 59, False), (100, 60, True)],
)
def test_nothing_is_kept_without_room(
    budget: int, free: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "available_memory", lambda: free)
    held = caches(budget)
    assert held.keep([-1] * 3) == fits
    assert len(held) == fits


def test_an_engine_that_cannot_copy_is_not_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    held = caches(1000)
    monkeypatch.setattr(Copier, "saved_size", lambda *_: 0)
    assert not held.keep([-1] * 3)
