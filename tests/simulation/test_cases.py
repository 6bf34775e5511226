"""The held-out cases never change."""

from __future__ import annotations

from pulse_edge.simulation.cases import Case, heldout


def _cases(count: int) -> list[Case]:
    return list(heldout(count, empty=0.5))


def test_heldout_is_fixed() -> None:
    first, second = _cases(1), _cases(1)
    assert first[0].image.tobytes() == second[0].image.tobytes()
    assert first[0].items == second[0].items
