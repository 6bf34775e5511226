"""Which rows of OpenVINO's KV cache belong to the sequence.

The CPU plugin's cache only grows, and cutting it copies all of it. So a rewind forgets rows where
they are: later rows come behind them, and the mask hides them. When too many are forgotten, the
engine copies the others together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers

HIDDEN = np.float32(-np.inf)  # added to the scores of a row that must not be seen
# Forgotten rows after which the others are copied together: a question and its answer take some
# 300, so copying comes after several questions. A row is 0.28 MB at 7B with a cache of bytes.
MOST_FORGOTTEN = 1024


class CachedRows:
    """The rows of the plugin's cache: which are there, and which of them were forgotten.

    Args:
        capacity: rows of the longest sequence.

    Attributes:
        total: rows that are there, forgotten or not.
        most_forgotten: see `MOST_FORGOTTEN`; not more than a sequence has.
    """

    def __init__(self, capacity: int) -> None:
        self.total = 0
        self.most_forgotten = min(MOST_FORGOTTEN, capacity)
        self._bias = np.zeros(capacity + self.most_forgotten, np.float32)

    @property
    def most(self) -> int:
        """Rows that may be there at most."""
        return len(self._bias)

    @property
    def length(self) -> int:
        """Rows of the sequence."""
        return self.total - self.forgotten

    @property
    def forgotten(self) -> int:
        """Rows that are there and belong to no sequence."""
        return int(np.count_nonzero(self._bias[: self.total]))

    def kept(self) -> Numbers:
        """int64: where the sequence's rows are, in order."""
        return np.flatnonzero(self._bias[: self.total] == 0)

    def mask(self, count: int) -> Floats:
        """What `count` new rows may see.

        Returns:
            float32 [1, 1, count, total + count], which is added to attention scores: each row sees
            the sequence's rows and the new ones up to itself.
        """
        mask = np.zeros((1, 1, count, self.total + count), np.float32)
        mask[..., : self.total] = self._bias[: self.total]
        if count > 1:
            mask[..., self.total :] = np.triu(np.full((count, count), HIDDEN), 1)
        return mask

    def append(self, count: int) -> None:
        """New rows are there, behind the others."""
        self._bias[self.total : self.total + count] = 0
        self.total += count

    def forget(self, length: int) -> None:
        """Keep the first `length` rows of the sequence."""
        self._bias[self.kept()[length:]] = HIDDEN

    def together(self, length: int) -> None:
        """The sequence's `length` rows are all that is there, at the beginning."""
        self.total = length
        self._bias[:length] = 0


def rows_together(state: NDArray[np.float32], rows: Numbers) -> NDArray[np.float32]:
    """Some rows of a layer's keys or values, [1, kv heads, rows, head size], as they follow."""
    return np.ascontiguousarray(state[:, :, rows])
