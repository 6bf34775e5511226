"""What the runtime needs of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_edge.arrays import Floats, Numbers
from pulse_edge.cancellation import Cancellation
from pulse_edge.engines.cursor import Cursor
from pulse_edge.progress import Progress

Features = Any  # what `Engine.encode` returns; an engine may keep a page's features on its device
Rows = NDArray[Any]  # what `Engine.rows` returns: part of a prompt in the form the engine takes


@dataclass(frozen=True, eq=False)
class SavedCache:
    """A copy of the first positions of a slot of the KV cache, outside the engine.

    Args:
        nbytes: size of the copy.
        content: as the engine that made it needs it.
    """

    nbytes: int
    content: Any


class Engine(Protocol):
    """The two networks of a bundle on a device, and their KV cache.

    The cache has one or several slots, each for one sequence, and `cursors` says how far each is
    filled. It never leaves the engine. `prefill`, `step` and `choose` append to a slot, `rewind`
    forgets from its end. A call that fails leaves the length as it was.

    A prompt is a list of numbers. Below `table_rows` a number is a row of the embedding table: a
    token's row is its id, and the newline of `spatial_unpad` is the last row. From `table_rows` on
    it is a row of a page's features, view after view. `rows` turns numbers into what the other
    calls take. Only the engine reads these rows. They are embeddings if the table is on the
    host, the numbers themselves if table and features are on the device.

    `encode` and `prefill` take seconds on a CPU, and a client may leave meanwhile. So they take a
    `Cancellation`. A CPU engine stops within a graph. A GPU engine stops between two calls, because
    launched kernels cannot be recalled and a call takes milliseconds. The engine stays usable.
    """

    @property
    def cursors(self) -> tuple[Cursor, ...]:
        """The length of each slot. All have the same capacity."""

    @property
    def capacity(self) -> int:
        """Positions that slot 0 can hold."""

    @property
    def length(self) -> int:
        """Positions of slot 0 that are filled."""

    @property
    def table_rows(self) -> int:
        """Rows of the embedding table."""

    @property
    def row_cost(self) -> float:
        """Extra time of one more row in a step, as a fraction of a one-row step (0.4 = +40 %).

        Approximate, and over 0. Speculation uses it to choose draft lengths.
        """

    @property
    def draft_cost(self) -> float:
        """Extra time of a step of several rows, however few, in the same unit; 0 or more."""

    @property
    def most_rows(self) -> int:
        """Rows of a step up to which the two costs hold. More may cost much more."""

    def encode(self, pixels: Floats, cancellation: Cancellation | None = None) -> Features:
        """Run the vision tower and the projector.

        An engine may keep only the features of the last call; `rows` then refuses earlier ones.

        Args:
            pixels: float32 [views, 3, side, side].
            cancellation: may end the call early.

        Returns:
            Features [views, patches, hidden]; `np.asarray` reads them.

        Raises:
            Cancelled: by the cancellation.
            EngineError: the pixels do not fit the graph, or it failed.
        """

    def rows(self, numbers: Numbers, page: Features | None = None) -> Rows:
        """Turn a prompt's numbers into rows for `prefill`, `step` and `choose`.

        Args:
            numbers: int64 [n].
            page: the features that numbers from `table_rows` on refer to.

        Returns:
            As many rows, [n, ...].

        Raises:
            EngineError: the engine no longer has the page's features.
        """

    def prefill(
        self,
        rows: Rows,
        progress: Progress | None = None,
        slot: int = 0,
        cancellation: Cancellation | None = None,
    ) -> Floats:
        """Append a prompt, or the rest of one.

        Args:
            rows: [n, ...], n > 0, for the slot's next n positions.
            progress: is told how many of the rows are done.
            slot: the sequence to append to.
            cancellation: may end the call early; the length is then what it was before.

        Returns:
            Logits float32 [vocab] after the last row; valid until the next call.

        Raises:
            Cancelled: by the cancellation.
            EngineError: the rows do not fit the cache, or the graph failed.
            ValueError: the rows do not come from `rows`, or there is no such slot.
        """

    def choose(self, rows: Rows, slot: int | Numbers = 0) -> Numbers:
        """As `step`, for greedy decoding: the most likely token after each row.

        An engine on a device does not copy the logits to the host.

        Returns:
            Token ids int64 [k]; -1 if the row's largest logit is not finite.
        """

    def step(self, rows: Rows, slot: int | Numbers = 0) -> Floats:
        """Append a few rows, with logits after each.

        The logits are those of k single steps but for rounding: with several rows a kernel adds up
        in another order, which may also move an int8 activation to its next level. Greedy decoding
        then differs only if the best two tokens tie within that difference.

        Args:
            rows: [k, ...], k small.
            slot: one slot for all rows, or an array [k] with the slot of each row. The rows of a
                slot get its next positions, in order. If each row has a slot of its own, one pass
                over the weights serves them all, as far as the slots lie near each other.

        Returns:
            Logits float32 [k, vocab]; valid until the next call.

        Raises:
            EngineError: the rows do not fit the cache, or the graph failed.
            ValueError: the rows do not come from `rows`, or there is no such slot.
        """

    def rewind(self, length: int, slot: int = 0) -> None:
        """Forget all but the first `length` positions. Raises `ValueError` if there are fewer."""

    def reset(self, slot: int = 0) -> None:
        """Forget everything, also what lies in the cache beyond the length.

        Call it after a request that failed. Attention on a GPU multiplies masked positions with 0,
        and a NaN that a forgotten position left there stays a NaN.
        """

    def saved_size(self, length: int) -> int:
        """Bytes of a copy of the first `length` positions of a slot.

        0 from an engine that makes no copies: on a GPU, to compute a page again takes no longer
        than to bring its part of the cache back from the host's memory.
        """

    def save(self, length: int, slot: int = 0) -> SavedCache:
        """Copy the first `length` positions of a slot, which are filled."""

    def restore(self, saved: SavedCache, length: int, slot: int = 0) -> None:
        """Let the first `length` positions of a copy be all that a slot holds."""

    def copy(self, length: int, source: int, slot: int) -> None:
        """Let the first `length` positions of slot `source` be all that another slot holds.

        Only engines that make copies (`saved_size`) have it.
        """

    def describe(self) -> dict[str, Any]:
        """For provenance: engine, version, device, threads, ..."""


def likeliest(logits: Floats) -> Numbers:
    """The most likely token of each row, or -1 if its largest logit is not finite.

    Args:
        logits: [k, vocab].

    Returns:
        int64 [k]; the first of equal logits.
    """
    finite = np.isfinite(logits.max(axis=1))  # a NaN anywhere in a row is its maximum
    chosen: Numbers = np.where(finite, logits.argmax(axis=1), -1)
    return chosen
