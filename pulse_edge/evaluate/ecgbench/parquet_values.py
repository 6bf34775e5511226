"""Values of one binary column of a parquet file, one at a time, however large its pages are.

pyarrow reads whole pages of parquet, and a writer may put 1,024 pictures into one: 1.5 GB, twice in
memory. This reads such a column as a stream, by Apache's parquet-format and Snappy's format
description.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

from pulse_edge.evaluate.ecgbench.parquet_encoding import (
    Readable,
    SnappyReader,
    read_hybrid,
    read_page_header,
)

_LEAST_HEADER = 1 << 16  # bytes that hold any page's header
_BUFFER = 1 << 18  # bytes
_DICTIONARY_PAGE = 2
_DATA_PAGE_V2 = 3
_PLAIN = 0
_ENCODINGS = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
_CODECS = {"UNCOMPRESSED", "SNAPPY", "GZIP", "ZSTD", "BROTLI"}


class FileRegion(io.RawIOBase):
    """A part of a file as a file of its own.

    Args:
        file: nobody else moves it meanwhile.
        start: where the part begins.
        size: its bytes.
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; see `io.RawIOBase`."""
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def can_stream(column: Any, repeated: int) -> bool:
    """Whether `column_values` reads a column chunk.

    Args:
        column: pyarrow's metadata of it.
        repeated: its largest repetition level.
    """
    known = set(column.encodings) <= _ENCODINGS and column.compression in _CODECS
    return known and not repeated and column.physical_type == "BYTE_ARRAY"


def column_values(
    arrow: Any, file: BinaryIO, column: Any, definition: int
) -> Iterator[bytes | None]:
    """The values of a column chunk, in the order of the rows; None for a null.

    Args:
        arrow: pyarrow, whose codecs are used.
        file: the parquet file.
        column: pyarrow's metadata of the chunk, for which `can_stream` is true.
        definition: the column's largest definition level.

    Raises:
        ValueError, EOFError: the file is damaged.
    """
    offsets = (column.dictionary_page_offset, column.data_page_offset)
    at = min(offset for offset in offsets if offset)
    left = column.num_values
    with tempfile.TemporaryFile() as spool:
        dictionary = _Dictionary(spool)
        while left > 0:
            file.seek(at)
            header, size = read_page_header(file.read(_LEAST_HEADER))
            page = io.BufferedReader(FileRegion(file, at + size, header[3]), _BUFFER)
            if header[1] == _DICTIONARY_PAGE:
                content = _decompressed(arrow, page, column.compression)
                dictionary.fill(content, header[7][1])
            elif 5 in header or 8 in header:
                yield from _page_values(arrow, header, page, column, definition, dictionary)
                left -= (header.get(5) or header[8])[1]
            at += size + header[3]


def _page_values(
    arrow: Any, header: Any, page: Readable, column: Any, definition: int, words: _Dictionary
) -> Iterator[bytes | None]:
    """The values of a data page of version 1 or 2."""
    codec = column.compression
    if header[1] == _DATA_PAGE_V2:
        fields = header[8]
        count, encoding = fields[1], fields[4]
        _read_exactly(page, fields[6])
        levels = _read_exactly(page, fields[5])
        content = _decompressed(arrow, page, codec if fields.get(7, True) else "UNCOMPRESSED")
    else:
        fields = header[5]
        count, encoding = fields[1], fields[2]
        content = _decompressed(arrow, page, codec)
        levels = b""
        if definition:
            levels = _read_exactly(content, int.from_bytes(_read_exactly(content, 4), "little"))
    there = [True] * count
    if definition:
        width = definition.bit_length()
        there = [level == definition for level in read_hybrid(levels, width, count)]
    if encoding == _PLAIN:
        for present in there:
            yield _plain(content) if present else None
        return
    rest = content.read(1 << 26)  # indices: a few bytes a row
    indices = iter(read_hybrid(rest[1:], rest[0], sum(there)) if rest else ())
    for present in there:
        yield words.word(next(indices)) if present else None


def _decompressed(arrow: Any, raw: Readable, codec: str) -> Readable:
    if codec == "UNCOMPRESSED":
        return raw
    if codec == "SNAPPY":
        return SnappyReader(raw)
    stream: Readable = arrow.CompressedInputStream(arrow.PythonFile(raw, "r"), codec.lower())
    return stream


def _plain(content: Readable) -> bytes:
    return _read_exactly(content, int.from_bytes(_read_exactly(content, 4), "little"))


def _read_exactly(content: Readable, size: int) -> bytes:
    data = content.read(size) if size else b""
    if len(data) < size:
        raise EOFError("a page ends early")
    return data


class _Dictionary:
    """The values that indices name, in a temporary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: list[tuple[int, int]] = []

    def fill(self, content: Readable, count: int) -> None:
        """Take the values of a dictionary page."""
        for _ in range(count):
            value = _plain(content)
            self._places.append((self._file.tell(), len(value)))
            self._file.write(value)

    def word(self, index: int) -> bytes:
        """The value of an index."""
        if index >= len(self._places):
            raise ValueError(f"an index is {index}, of {len(self._places)} values")
        start, size = self._places[index]
        self._file.seek(start)
        return self._file.read(size)
