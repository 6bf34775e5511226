"""What the runtime needs of an engine."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.progress import Progress

Features = Any  # what `Engine.encode` returns: a page's features where the engine keeps them
Rows = NDArray[Any]  # what `Engine.rows` returns: a stretch of a prompt as the engine takes it


class Engine(Protocol):
    """The two networks of a bundle on a device, and their KV cache.

    The cache holds `length` of at most `capacity` positions; it belongs to the engine and never leaves it.
    `prefill`, `step` and `choose` append to it; `rewind` forgets from the end. A call that fails leaves `length` as it
    was.

    A prompt is a list of numbers: rows of the embedding table (a token's is its id; the newline of `spatial_unpad` is
    the last one), and, from the table's length on, rows of a page's features, view after view. `rows` turns numbers
    into what the other calls take, which only the engine looks into: embeddings where they come from the host, the
    numbers themselves where table and features lie on a device.
    """

    capacity: int
    length: int
    table_rows: int  # of the embedding table
    row_cost: float  # about what each further row adds to a step, over 0, as a share of a step of one row: lookup.cost

    def encode(self, pixels: Floats) -> Features:
        """pixels float32 [views, 3, side, side] -> features [views, patches, hidden]; `np.asarray` reads them.

        An engine may keep those of the last call only: `rows` then refuses earlier ones.
        """

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        """numbers int64 [n] -> as many rows. page: the features that numbers from `table_rows` on refer to."""

    def prefill(self, rows: Rows, progress: Progress | None = None) -> Floats:
        """rows [n, …] of the next n positions -> logits float32 [vocab] after the last; valid until the next call."""

    def choose(self, rows: Rows) -> Numbers:
        """As `step`, for greedy decoding: the likeliest token after each row [k], -1 where its logit is not finite.

        What is not copied is the logits: on a device they stay there.
        """

    def step(self, rows: Rows) -> Floats:
        """rows [k, …], k small -> logits float32 [k, vocab] after each; valid until the next call.

        They are the logits of k single steps but for rounding: for several rows a kernel adds up in another order, and
        where activations are int8, a last bit may move one to its next level. Greedy decoding then differs only where
        the best two tokens tie within that.
        """

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions."""

    def reset(self) -> None:
        """Forget everything, also what lies in the cache beyond `length`.

        After a request that failed: on a GPU, attention multiplies what it masks with 0, and 0 times a NaN that a
        forgotten position has left is a NaN.
        """

    def describe(self) -> dict[str, Any]:
        """For provenance: engine, version, device, threads, …"""


def likeliest(logits: Floats) -> Numbers:
    """logits [k, vocab] -> the first of the largest of each row [k], or -1 where that is not finite."""
    finite = np.isfinite(logits.max(axis=1))  # a NaN anywhere in a row is its maximum
    chosen: Numbers = np.where(finite, logits.argmax(axis=1), -1)
    return chosen
