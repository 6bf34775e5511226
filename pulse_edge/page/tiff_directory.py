"""Directories of TIFF: the tags of a TIFF page, and those of EXIF and MPF, which are TIFF too.

TIFF 6.0, section 2, and BigTIFF, which has 8-byte offsets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

_MAX_TAGS = 1_024  # of a directory; writers use some dozens
_MAX_VALUES = 1 << 18  # of a tag; a strip for each row of the tallest page has fewer
# Field type -> struct's letter. Other types (text, fractions, floats) hold nothing that is read.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {2: 1, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8} | {
    kind: struct.calcsize("=" + letter) for kind, letter in _INTEGERS.items()
}


class Flavour(NamedTuple):
    """Byte order and offset size of a TIFF.

    Attributes:
        order: struct's letter of the byte order.
        length: struct's letter of the number of entries in a directory.
        offset: struct's letter of an offset.
    """

    order: str
    length: str
    offset: str

    @property
    def entry_size(self) -> int:
        return 4 + 2 * struct.calcsize("=" + self.offset)


class Tag(NamedTuple):
    """An entry: where its values are.

    Attributes:
        kind: the field type.
        values: how many values it has.
        place: offset of the first value in the file.
    """

    kind: int
    values: int
    place: int

    @property
    def size(self) -> int:
        """Bytes of all values; 0 for a field type that is not known."""
        return self.values * _SIZES.get(self.kind, 0)


@dataclass(frozen=True)
class Directory:
    """A directory of tags.

    Attributes:
        flavour: of its file.
        data: its file.
        tags: number -> entry; of entries with one number, the first counts.
        complete: whether all entries that it announces are there, and were read.
        next: offset of the next directory; 0 for the last.
    """

    flavour: Flavour
    data: bytes
    tags: dict[int, Tag]
    complete: bool
    next: int

    def integers(self, number: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Values of a tag of an integer type; `default` if it is absent or of another type.

        Raises:
            ValueError: the values lie outside the file.
        """
        tag = self.tags.get(number)
        if tag is None or tag.kind not in _INTEGERS or not tag.values:
            return default
        if tag.place + tag.size > len(self.data):
            raise ValueError(f"the values of tag {number} lie outside the file")
        if tag.values > _MAX_VALUES:
            raise ValueError(f"tag {number} has {tag.values:,} values, over {_MAX_VALUES:,}")
        form = f"{self.flavour.order}{tag.values}{_INTEGERS[tag.kind]}"
        return struct.unpack_from(form, self.data, tag.place)

    def integer(self, number: int, default: int) -> int:
        """The first value of `integers`."""
        return self.integers(number, (default,))[0]

    def content(self, number: int) -> bytes:
        """Bytes of a tag, whatever its type; none if it is absent or lies outside the file."""
        tag = self.tags.get(number)
        if tag is None or tag.place + tag.size > len(self.data):
            return b""
        return self.data[tag.place : tag.place + tag.size]


def read_tiff_header(data: bytes) -> tuple[Flavour, int]:
    """(flavour, offset of the first directory) of a TIFF.

    Raises:
        ValueError: it is no TIFF.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        raise ValueError("no TIFF header")
    version = struct.unpack_from(order + "H", data, 2)[0]
    if version == 42:
        return Flavour(order, "H", "I"), struct.unpack_from(order + "I", data, 4)[0]
    if version == 43 and len(data) >= 16:
        return Flavour(order, "Q", "Q"), struct.unpack_from(order + "Q", data, 8)[0]
    raise ValueError(f"no TIFF header (version {version})")


def read_directory(data: bytes, flavour: Flavour, offset: int) -> Directory:
    """The directory at an offset.

    Raises:
        ValueError: it lies outside the file.
    """
    order = flavour.order
    start = offset + struct.calcsize("=" + flavour.length)
    if offset < 8 or start > len(data):
        raise ValueError(f"no directory at byte {offset} of {len(data)}")
    count = struct.unpack_from(order + flavour.length, data, offset)[0]
    size = flavour.entry_size
    present = min(count, (len(data) - start) // size, _MAX_TAGS)
    tags: dict[int, Tag] = {}
    head = struct.Struct(f"{order}HH{flavour.offset}")
    inline = size - head.size
    for place in range(start, start + present * size, size):
        number, kind, values = head.unpack_from(data, place)
        pointer = place + head.size
        if values * _SIZES.get(kind, 0) > inline:
            pointer = struct.unpack_from(order + flavour.offset, data, pointer)[0]
        tags.setdefault(number, Tag(kind, values, pointer))
    end = start + count * size
    width = struct.calcsize("=" + flavour.offset)
    after = (
        struct.unpack_from(order + flavour.offset, data, end)[0]
        if (end + width <= len(data))
        else 0
    )
    return Directory(flavour, data, tags, present == count, after)
