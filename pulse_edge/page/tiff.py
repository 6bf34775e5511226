"""TIFF files: the first page's directory checked, and written anew without metadata.

Pillow paints rows black that no strip holds, turns pages by itself, warns of odd metadata, and does
not know every kind of 16-bit page. It gets a directory of the tags that make the picture. Most
compressions of TIFF hold no checksums: other damage shows in the picture alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pulse_edge.errors import ImageError
from pulse_edge.page.container import Container, page_note
from pulse_edge.page.jpeg import read_jpeg
from pulse_edge.page.limits import MAX_COUNTED_PAGES, MAX_PIXELS, check_page_size
from pulse_edge.page.orientation import ORIENTATION_TAG, legal_orientation, read_orientation
from pulse_edge.page.tiff_directory import Directory, read_directory, read_tiff_header

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 277, 278, 279
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 284, 322, 323, 324, 325
_SUBFILE, _FORMAT, _JPEG_TABLES, _XMP = 254, 339, 347, 700
# Tags that say how samples become a picture: also fill order, options of the CCITT codes,
# predictor, palette, extra samples, and the constants of YCbCr.
_PICTURE = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _STRIPS, _SAMPLES),
    *(_ROWS_PER_STRIP, _STRIP_SIZES, _PLANAR, 292, 293, 317, 320, _TILE_WIDTH, _TILE_HEIGHT),
    *(_TILES, _TILE_SIZES, 338, _JPEG_TABLES, 529, 530, 532),
}
_STRIP_TAGS = {_STRIPS, _ROWS_PER_STRIP, _STRIP_SIZES}
_TILE_TAGS = {_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES}
_SHORT, _LONG = 3, 4  # field types
_RAW, _JPEG = 1, 7
_COMPRESSIONS = {
    _RAW: "none",
    2: "CCITT",
    3: "CCITT group 3",
    4: "CCITT group 4",
    5: "LZW",
    _JPEG: "JPEG",
    8: "deflate",
    32946: "deflate",
    32773: "PackBits",
    34925: "LZMA",
    50000: "ZSTD",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_UNSIGNED, _SIGNED = 1, 2
_SAMPLE_FORMATS = {3: "floating point", 4: "of unknown kind", 5: "complex", 6: "complex"}
_SAVE = "save it as an 8-bit or 16-bit PNG"
_MAX_PARTS = 65_536  # strips or tiles: Pillow opens a decoder for each
_MAX_JPEG_PARTS = 4_096  # each is decoded by itself, twice
_MIN_TILE = 16  # pixels (TIFF 6.0, section 15)


class _Layout(NamedTuple):
    """How a page's samples lie in its file."""

    width: int
    height: int
    bits: int
    samples: int
    photometric: int
    signed: bool
    compression: int

    @property
    def deep_grey(self) -> bool:
        """Whether it is grey with more than 8 bits, which this package reduces itself."""
        return self.samples == 1 and self.bits > 8


class _Parts(NamedTuple):
    """The strips or tiles of a page: (width, height) of one, and (offset, size) of each."""

    size: tuple[int, int]
    places: tuple[tuple[int, int], ...]


def read_tiff(data: bytes, page: int = 1) -> Container:
    """Check a page of a TIFF and set its metadata and the other pages aside.

    Args:
        data: of the file.
        page: its number, from 1.

    Raises:
        ImageError: it is damaged, too large, or of a kind that is not read; or there is no such
            page.
    """
    try:
        flavour, offset = read_tiff_header(data)
        first = read_directory(data, flavour, offset)
        following = list(_following_pages(first, offset))
        pages = 1 + len(following)
        if page > pages:
            there = "page 1" if pages == 1 else f"pages 1 to {pages:,}"
            raise ImageError(f"no page {page:,}; the TIFF has {there}")
        directory = first if page == 1 else following[page - 2]
        if not directory.complete:
            raise ImageError("the image is truncated: the directory of the TIFF ends beyond it")
        layout = _read_layout(directory)
        parts = _check_parts(directory, layout)
        exif_orientation = directory.integer(ORIENTATION_TAG, 0)
    except ValueError as error:
        raise ImageError(f"the image is damaged: {error}") from None
    orientation = legal_orientation(exif_orientation)
    if not exif_orientation:
        orientation, _ = read_orientation(b"", directory.content(_XMP))
    return Container(
        "TIFF",
        (layout.width, layout.height),
        lambda: _bare_tiff(directory, layout),
        orientation,
        pages,
        page_note(pages, page),
        bits=layout.bits,
        signed=layout.signed,
        inverted=layout.deep_grey and layout.photometric == _WHITE_IS_ZERO,
        strips=lambda: _jpeg_strips(directory, parts) if layout.compression == _JPEG else (),
    )


def _read_layout(directory: Directory) -> _Layout:
    width, height = directory.integer(_WIDTH, 0), directory.integer(_HEIGHT, 0)
    samples = directory.integer(_SAMPLES, 1)
    depths = set(directory.integers(_BITS, (1,)))
    forms = set(directory.integers(_FORMAT, (_UNSIGNED,)))
    compression = directory.integer(_COMPRESSION, _RAW)
    photometric = directory.integer(_PHOTOMETRIC, _WHITE_IS_ZERO)
    bits = max(depths)
    _check_samples(bits, depths, forms, samples)
    if compression not in _COMPRESSIONS:
        names = ", ".join(dict.fromkeys(_COMPRESSIONS.values()))
        raise ImageError(f"a TIFF of compression {compression}, not one of {names}; {_SAVE}")
    # libtiff may inflate the page as one strip beside the picture.
    check_page_size(width, height, max(8, 4 + -(-bits * samples // 8)))
    return _Layout(width, height, bits, samples, photometric, _SIGNED in forms, compression)


def _check_samples(bits: int, depths: set[int], forms: set[int], samples: int) -> None:
    if not forms <= {_UNSIGNED, _SIGNED}:
        kind = _SAMPLE_FORMATS.get(max(forms), f"of format {max(forms)}")
        raise ImageError(f"a TIFF of {bits}-bit samples that are {kind}; {_SAVE}")
    if not 1 <= bits <= 16 or len(depths) > 1 or len(forms) > 1:
        shown = f"{bits}-bit" if len(depths) == 1 else f"{min(depths)}-bit and {bits}-bit"
        raise ImageError(f"a TIFF of {shown} samples, not 1 to 16 bits and alike; {_SAVE}")
    if not 1 <= samples <= 6:
        raise ImageError(f"a TIFF of {samples} samples a pixel, not 1 to 6; {_SAVE}")
    if _SIGNED in forms and (samples > 1 or bits not in (8, 16)):
        raise ImageError(f"a TIFF of signed colours; {_SAVE}")


def _check_parts(directory: Directory, layout: _Layout) -> _Parts:
    """The strips or tiles: all there, inside the file, and long enough."""
    tiled = _TILES in directory.tags
    width = directory.integer(_TILE_WIDTH, 0) if tiled else layout.width
    rows = directory.integer(_TILE_HEIGHT if tiled else _ROWS_PER_STRIP, 0)
    if tiled and (min(width, rows) < _MIN_TILE or width * rows > MAX_PIXELS):
        raise ImageError(f"the image is damaged: the TIFF has tiles of {width} x {rows} pixels")
    if not tiled:
        rows = min(rows or layout.height, layout.height)
    planes = layout.samples if directory.integer(_PLANAR, 1) == 2 else 1
    in_plane = -(-layout.width // width) * -(-layout.height // rows)
    most = _MAX_JPEG_PARTS if layout.compression == _JPEG else _MAX_PARTS
    if in_plane * planes > most:
        raise ImageError(f"a TIFF of {in_plane * planes:,} strips or tiles, over {most:,}; {_SAVE}")
    offsets = directory.integers(_TILES if tiled else _STRIPS)
    sizes = directory.integers(_TILE_SIZES if tiled else _STRIP_SIZES)
    if not sizes and layout.compression == _RAW and len(offsets) == 1:
        sizes = (len(directory.data) - offsets[0],)  # old writers leave out the size of one strip
    if not len(offsets) == len(sizes) == in_plane * planes:
        raise ImageError(
            f"the image is damaged: the TIFF has {len(offsets):,} strips or tiles and "
            f"{len(sizes):,} sizes of them, not {in_plane * planes:,}"
        )
    line = (width * layout.bits * (layout.samples // planes) + 7) // 8
    last = rows if tiled else layout.height - (in_plane - 1) * rows
    for index, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        least = line * (last if index % in_plane == in_plane - 1 else rows)
        least = least if layout.compression == _RAW else 1
        if size < least or offset < 8 or offset + size > len(directory.data):
            raise ImageError("the image is truncated: a strip of the TIFF lies outside the file")
    return _Parts((width, rows), tuple(zip(offsets, sizes, strict=True)))


def _jpeg_strips(directory: Directory, parts: _Parts) -> Iterator[Container]:
    """The strips or tiles as JPEG files. libtiff would leave their missing rows grey."""
    tables = directory.content(_JPEG_TABLES)
    for offset, size in parts.places:
        strip = directory.data[offset : offset + size]
        jpeg = read_jpeg(tables[:-2] + strip[2:] if len(tables) > 4 else strip)
        if jpeg.size[0] > parts.size[0] or jpeg.size[1] > parts.size[1]:
            raise ImageError("the image is damaged: a JPEG in the TIFF is larger than its strip")
        yield jpeg


def _following_pages(first: Directory, offset: int) -> Iterator[Directory]:
    """The pages after the first; smaller copies of a page and masks are none."""
    seen = {offset}
    following = first.next
    while following and following not in seen and len(seen) < MAX_COUNTED_PAGES:
        seen.add(following)
        try:
            directory = read_directory(first.data, first.flavour, following)
        except ValueError:
            break
        if not directory.integer(_SUBFILE, 0) & 0b101:
            yield directory
        following = directory.next


def _bare_tiff(directory: Directory, layout: _Layout) -> bytes:
    """The file as a classic TIFF, with a directory at its end that has the picture's tags alone.

    Grey samples of more than 8 bits are called black-is-zero, which Pillow reads in every byte
    order; `Container` says what they are.
    """
    view = memoryview(directory.data)
    order = directory.flavour.order
    end = len(view) + len(view) % 2
    unused = _STRIP_TAGS if _TILES in directory.tags else _TILE_TAGS
    numbers = sorted(directory.tags.keys() & _PICTURE - unused)
    behind = end + 2 + 12 * len(numbers) + 4
    entries = [struct.pack(order + "H", len(numbers))]
    rest = b""
    for number in numbers:
        kind, count, values = _values(directory, number)
        if number == _PHOTOMETRIC and layout.deep_grey and layout.photometric == _WHITE_IS_ZERO:
            kind, count, values = _SHORT, 1, struct.pack(order + "H", _BLACK_IS_ZERO)
        entries.append(struct.pack(order + "HHI", number, kind, count))
        if len(values) > 4:
            entries.append(struct.pack(order + "I", behind + len(rest)))
            rest += values + b"\0" * (len(values) % 2)
        else:
            entries.append(values.ljust(4, b"\0"))
    head = directory.data[:2] + struct.pack(order + "HI", 42, end)
    padding = b"\0" * (end - len(view))
    return b"".join((head, view[len(head) :], padding, *entries, bytes(4), rest))


def _values(directory: Directory, number: int) -> tuple[int, int, bytes]:
    """(field type, count, bytes) of a tag; whole numbers in the shortest type of classic TIFF."""
    order = directory.flavour.order
    numbers = directory.integers(number)
    if not numbers:  # JPEG tables, and fractions
        tag = directory.tags[number]
        return tag.kind, tag.values, directory.content(number)
    if min(numbers) < 0 or max(numbers) > 0xFFFFFFFF:
        raise ImageError(f"the image is damaged: tag {number} of the TIFF is out of range")
    kind, letter = (_SHORT, "H") if max(numbers) <= 0xFFFF else (_LONG, "I")
    return kind, len(numbers), struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
