"""Places on a page that hold no ink."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ink = NDArray[np.uint8]


class Reach(NamedTuple):
    """How far something may be moved from its place, in pixels."""

    left: int = 0
    right: int = 0
    up: int = 0
    down: int = 0


class Box(NamedTuple):
    """A rectangle of pixels: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int

    def inside(self, ink: Ink) -> Ink:
        """What `ink` holds there. Over the page's edges there is nothing."""
        rows = slice(max(0, self.top), max(0, self.bottom))
        return ink[rows, max(0, self.left) : max(0, self.right)]

    def moved(self, dx: int, dy: int) -> Box:
        """The same rectangle elsewhere."""
        return Box(self.left + dx, self.top + dy, self.right + dx, self.bottom + dy)

    def widened(self, margin: int) -> Box:
        """The rectangle and `margin` pixels around it."""
        return Box(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)


def nearest_vacancy(ink: Ink, box: Box, reach: Reach) -> tuple[int, int, bool]:
    """The least move that takes a box to where no ink is.

    A move up or down counts twice, because a name belongs to the line of its row.

    Args:
        ink: coverage [height, width].
        box: with its margins.
        reach: how far it may go. It does not go over an edge of the page that it is inside of.

    Returns:
        (to the right, down, whether no ink is there). If there is ink everywhere, the move to where
        the least is.
    """
    if not box.inside(ink).any():
        return 0, 0, True
    height, width = ink.shape
    left, right = max(-reach.left, min(0, -box.left)), min(reach.right, max(0, width - box.right))
    up, down = max(-reach.up, min(0, -box.top)), min(reach.down, max(0, height - box.bottom))
    dx = np.arange(left, right + 1)
    dy = np.arange(up, down + 1)
    window = Box(box.left + left, box.top + up, box.right + right, box.bottom + down)
    covered = _covered(ink, window, box)
    cost = np.abs(dx)[None, :] + 2.0 * np.abs(dy)[:, None]
    least = covered.min()
    row, column = np.unravel_index(
        int(np.argmin(np.where(covered == least, cost, np.inf))), cost.shape
    )
    return int(dx[column]), int(dy[row]), bool(least == 0)


def _covered(ink: Ink, window: Box, box: Box) -> NDArray[np.int64]:
    """Inked pixels in a box of that size at each place in a window."""
    inked = np.zeros((window.bottom - window.top, window.right - window.left), np.int64)
    part = window.inside(ink)
    top, left = max(0, -window.top), max(0, -window.left)
    inked[top : top + part.shape[0], left : left + part.shape[1]] = part != 0
    sums = np.pad(inked.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    high, wide = box.bottom - box.top, box.right - box.left
    total: NDArray[np.int64] = (
        sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    )
    return total
