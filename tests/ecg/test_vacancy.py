"""Places without ink: against a search of every move."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pulse_edge.ecg.vacancy import Box, Reach, nearest_vacancy


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_move_to_the_least_ink(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ink = (rng.random((24, 30)) < (0.02, 0.3)[seed % 2]).astype(np.uint8) * 9
    left, top = (int(value) for value in rng.integers(0, 9, 2))
    box = Box(left, top, 14, 13)
    reach = Reach(*(int(v) for v in rng.integers(0, 12, 4)))
    moves = [
        (int((box.moved(dx, dy).inside(ink) > 0).sum()), abs(dx) + 2 * abs(dy))
        for dx, dy in product(range(-reach.left, reach.right + 1), range(-reach.up, reach.down + 1))
        if box.left + dx >= 0
        and box.right + dx <= 30
        and box.top + dy >= 0
        and box.bottom + dy <= 24
    ]
    dx, dy, vacant = nearest_vacancy(ink, box, reach)
    found = (int((box.moved(dx, dy).inside(ink) > 0).sum()), abs(dx) + 2 * abs(dy))
    assert found == min(moves)
    assert vacant == (found[0] == 0)


def test_a_clear_place_is_kept_also_over_an_edge() -> None:
    assert nearest_vacancy(np.zeros((9, 9), np.uint8), Box(-4, -3, 2, 2), Reach(5, 5, 5, 5)) == (
        *(0, 0),
        True,
    )
