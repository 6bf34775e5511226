"""Rows of a parquet file of ECGBench, a few at a time: a row has a page of more than a megabyte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pulse_edge.errors import ParameterError
from pulse_edge.evaluate.ecgbench.parquet_values import can_stream, column_values

PAGES = "image.bytes"  # the column of the pages
_ROWS = 4  # read at a time
LARGE = 1 << 27  # bytes of a row group's pages; pyarrow may need twice as much for them
_BUFFER = 1 << 20  # bytes
# What damaged headers and pages raise: a field may be missing, or be of another kind.
_DAMAGED = (ValueError, EOFError, KeyError, TypeError, IndexError, OverflowError)
Data = Callable[[], bytes | None]


def import_pyarrow() -> tuple[Any, Any]:
    """pyarrow and its parquet module.

    Raises:
        ParameterError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ParameterError(
            "parquet files need pyarrow; run pip install 'pulse-edge[ecgbench]'"
        ) from None
    return pyarrow, pyarrow.parquet


def parquet_rows(path: Path) -> Iterator[tuple[str, Any, Data]]:
    """The rows of a file.

    Args:
        path: of the file.

    Yields:
        Where the row stands, for messages; its fields without the page's bytes; and a function that
        returns those bytes, or None if the row has none.

    Raises:
        ParameterError: the file cannot be read.
    """
    arrow, parquet = import_pyarrow()
    number = 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            for group in range(file.num_row_groups):
                for row, data in _group_rows(arrow, path, file, group):
                    yield f"{path}, row {number}", row, partial(_bytes, data)
                    number += 1
    except (*_DAMAGED, MemoryError, OSError, arrow.ArrowException) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "take the JSON layout" if isinstance(error, MemoryError) else "fetch it again"
        raise ParameterError(f"{path}: cannot be read ({first:.120}); {advice}") from None


def _group_rows(
    arrow: Any, path: Path, file: Any, group: int
) -> Iterator[tuple[Any, bytes | None]]:
    """Rows of a row group without their page's bytes, and those bytes."""
    names = {file.metadata.schema.column(i).path: i for i in range(file.metadata.num_columns)}
    place = names.get(PAGES)
    if place is not None:
        column = file.metadata.row_group(group).column(place)
        schema = file.metadata.schema.column(place)
        large = column.total_uncompressed_size > LARGE
        if large and can_stream(column, schema.max_repetition_level):
            others = [name for name in names if name != PAGES]
            rows = _batch_rows(file, group, others)
            with path.open("rb") as raw:
                values = column_values(arrow, raw, column, schema.max_definition_level)
                yield from zip(rows, values, strict=True)
            return
    for row in _batch_rows(file, group, None):
        image = row.get("image")
        yield row, image.pop("bytes", None) if isinstance(image, dict) else None


def _batch_rows(file: Any, group: int, columns: list[str] | None) -> Iterator[Any]:
    batches = file.iter_batches(_ROWS, [group], columns, use_threads=False)
    return (row for batch in batches for row in batch.to_pylist())


def _bytes(data: bytes | None) -> bytes | None:
    return data
