"""What parquet is written in: Thrift's compact protocol, run lengths, and Snappy.

By Apache's parquet-format (Encodings.md), and the descriptions of Thrift's compact protocol and of
Snappy's format.
"""

from __future__ import annotations

from typing import Any, Protocol

_WINDOW = 1 << 17  # bytes that a copy may reach back; Snappy's blocks have 65,536
_MOST_KEPT = 1 << 22  # bytes of output that were read already
_SHORT = 60  # a literal's length up to which it is in the tag


class Readable(Protocol):
    """What gives bytes."""

    def read(self, size: int, /) -> bytes:
        """Bytes; fewer than `size` only at the end."""
        ...


def read_page_header(data: bytes) -> tuple[dict[int, Any], int]:
    """A page's header.

    Args:
        data: begins with it.

    Returns:
        Its fields by number, and the bytes that it has.

    Raises:
        ValueError: it is none.
    """
    reader = _CompactReader(data)
    try:
        header = reader.struct()
    except IndexError:
        raise ValueError("a page's header is damaged") from None
    if not {1, 2, 3} <= header.keys() or header[3] < 0:
        raise ValueError("a page's header is incomplete")
    return header, reader.at


class _CompactReader:
    """Thrift's compact protocol.

    Attributes:
        at: the next byte.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self) -> dict[int, Any]:
        """A struct: its fields by number."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._number())
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._number()
            return [self._value(head & 15) for _ in range(count)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"a page's header has a field of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self._data):
            raise ValueError("a page's header ends early")
        return self._data[self.at - size : self.at]

    def _number(self) -> int:
        number = 0
        shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def _signed(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)


def read_hybrid(data: bytes, width: int, count: int) -> list[int]:
    """Numbers in parquet's mix of run lengths and packed bits.

    Args:
        data: of the runs.
        width: bits of a number.
        count: of numbers.

    Raises:
        ValueError: there are fewer.
    """
    values: list[int] = []
    at = 0
    size = (width + 7) // 8
    mask = (1 << width) - 1
    while len(values) < count:
        head = 0
        shift = 0
        while True:
            if at >= len(data):
                raise ValueError("a page has fewer numbers than values")
            head |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        if head & 1:
            for _ in range(head >> 1):
                bits = int.from_bytes(data[at : at + width], "little")
                values += [(bits >> (width * place)) & mask for place in range(8)]
                at += width
        else:
            run = min(head >> 1, count - len(values))
            values += [int.from_bytes(data[at : at + size], "little")] * run
            at += size
    return values[:count]


class SnappyReader:
    """Decompresses Snappy's raw format as a stream.

    Args:
        file: the compressed bytes.

    Raises:
        ValueError: the bytes are not Snappy's. `read` raises it, too.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._out = bytearray()
        self._read = 0  # bytes of `_out` that were handed out
        self._left = self._number()  # bytes that are still compressed

    def read(self, size: int, /) -> bytes:
        """Bytes; fewer than `size` only at the end."""
        out = self._out
        while len(out) - self._read < size and self._left > 0:
            self._element()
        data = bytes(memoryview(out)[self._read : self._read + size])
        self._read += len(data)
        if self._read > _MOST_KEPT:
            cut = self._read - _WINDOW
            del out[:cut]
            self._read -= cut
        return data

    def _element(self) -> None:
        tag = self._take(1)[0]
        kind = tag & 3
        size = (tag >> 2) + 1
        if kind == 0:
            if size > _SHORT:
                size = int.from_bytes(self._take(size - _SHORT), "little") + 1
            self._out += self._take(size)
        else:
            if kind == 1:
                size = 4 + (tag >> 2 & 7)
                offset = tag >> 5 << 8 | self._take(1)[0]
            else:
                offset = int.from_bytes(self._take(2 if kind == 2 else 4), "little")
            self._copy(offset, size)
        self._left -= size

    def _copy(self, offset: int, size: int) -> None:
        start = len(self._out) - offset
        if offset == 0 or start < 0:
            raise ValueError("a copy reaches back too far")
        piece = self._out[start : start + size]
        if len(piece) < size:  # it overlaps itself
            piece = (piece * (size // len(piece) + 1))[:size]
        self._out += piece

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ValueError("a compressed page ends early")
        return data

    def _number(self) -> int:
        number = 0
        shift = 0
        while True:
            byte = self._take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
