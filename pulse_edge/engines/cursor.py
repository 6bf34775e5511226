"""The length of a KV cache, with the rules that all engines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray

from pulse_edge.arrays import Numbers
from pulse_edge.cancellation import Cancellation
from pulse_edge.errors import EngineError
from pulse_edge.progress import Progress

Result = TypeVar("Result")
GRAPH_ROWS = 16  # rows of the largest step that engines keep: a token and the longest draft


class Cursor:
    """How many positions of one slot's KV cache are filled: `length` of `capacity`.

    The engine writes the cache, the cursor says where. Positions count only after the write
    succeeded, so a failed call leaves the length as it was.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._length = 0

    @property
    def length(self) -> int:
        """Positions that are filled."""
        return self._length

    def appending(self, rows: int) -> Append:
        """A block that writes the next `rows` positions; they count if the block succeeds.

        `with` gives it the first of these positions.

        Raises:
            EngineError: they do not fit. A kernel would write beyond the cache.
        """
        total = self._length + rows
        if total > self.capacity:
            raise EngineError(f"{total} tokens do not fit a cache of {self.capacity}")
        return Append(self, self._length, total)

    def advance(self, length: int) -> None:
        """Count the positions up to `length`, which have been written."""
        self._length = length

    @contextmanager
    def unchanged_on_failure(self) -> Iterator[None]:
        """Take back all that the block appended if it fails or is interrupted."""
        start = self._length
        try:
            yield
        except BaseException:
            self._length = start
            raise

    def prefill(
        self,
        rows: NDArray[Any],
        chunk: int,
        append: Callable[[NDArray[Any]], Result],
        progress: Progress | None = None,
        cancellation: Cancellation | None = None,
    ) -> Result:
        """Append a prompt chunk by chunk, all of it or nothing.

        Args:
            rows: the prompt, [n, ...] with n > 0.
            chunk: most rows of one `append`; 0 for the whole prompt at once.
            append: writes a chunk [k, ...] to the cache, within `appending`.
            progress: is told about the start, then about each chunk.
            cancellation: is looked at before each chunk.

        Returns:
            What `append` returned for the last chunk.

        Raises:
            Cancelled: by the cancellation.
            EngineError: the prompt does not fit, or `append` failed.
            ValueError: there are no rows.
        """
        total = len(rows)
        if not total:
            raise ValueError("a prompt without rows")
        if progress:
            progress("prefill", 0, total)
        with self.unchanged_on_failure():
            for start in range(0, total, chunk or total):
                if cancellation:
                    cancellation.check()
                part = rows[start : start + (chunk or total)]
                result = append(part)
                if progress:
                    progress("prefill", len(part), total)
        return result

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` positions.

        Raises:
            ValueError: `length` is negative or beyond what is filled.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot rewind a cache of {self._length} to {length}")
        self._length = length


class Append:
    """See `Cursor.appending`.

    A class, because `contextlib`'s generators take 3 us more, 2 % of a step of the model in the
    package.
    """

    __slots__ = ("_cursor", "_start", "_total")

    def __init__(self, cursor: Cursor, start: int, total: int) -> None:
        self._cursor = cursor
        self._start = start
        self._total = total

    def __enter__(self) -> int:
        return self._start

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._cursor.advance(self._total)


class Slots:
    """Base of engines whose cache holds several sequences: the cursors' part of `Engine`.

    Steps of these engines cost more by the row, and `GRAPH_ROWS` of them are kept captured.

    Args:
        capacity: positions of each slot.
        count: of the slots.
    """

    draft_cost = 0.0
    most_rows = GRAPH_ROWS

    def __init__(self, capacity: int, count: int) -> None:
        self.cursors = tuple(Cursor(capacity) for _ in range(count))

    @property
    def capacity(self) -> int:
        """See `Engine`."""
        return self.cursors[0].capacity

    @property
    def length(self) -> int:
        """See `Engine`."""
        return self.cursors[0].length

    def rewind(self, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        self.cursor(slot).rewind(length)

    def saved_size(self, length: int) -> int:
        """See `Engine`."""
        return 0

    def save(self, length: int, slot: int = 0) -> Any:
        """See `Engine`."""
        raise NotImplementedError("this engine makes no copies of its cache")

    def restore(self, saved: Any, length: int, slot: int = 0) -> None:
        """See `Engine`."""
        raise NotImplementedError("this engine makes no copies of its cache")

    def copy(self, length: int, source: int, slot: int) -> None:
        """See `Engine`."""
        raise NotImplementedError("this engine makes no copies of its cache")

    def cursor(self, slot: int | Numbers = 0) -> Cursor:
        """The cursor of a slot, or of an array that names one slot only.

        Raises:
            ValueError: there is no such slot, or the array names several.
        """
        if isinstance(slot, int):
            number = slot
        else:
            numbers = set(slot.tolist())
            number = int(numbers.pop()) if len(numbers) == 1 else -1
        count = len(self.cursors)
        if not 0 <= number < count:
            legal = "one slot, 0" if count == 1 else f"slots 0 to {count - 1}"
            raise ValueError(f"slot {slot}, but this engine has {legal}")
        return self.cursors[number]


class SingleSlot(Slots):
    """Base of engines whose cache holds one sequence."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, 1)
