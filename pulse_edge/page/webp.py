"""WebP files: their chunks are walked before libwebp reads them. They hold no checksums."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import count

from pulse_edge.errors import ImageError
from pulse_edge.page.container import Container, page_note
from pulse_edge.page.limits import MAX_COUNTED_PAGES, check_page_size, check_pieces
from pulse_edge.page.orientation import read_orientation

# libwebp's animation decoder holds the canvas and the frame before it; Pillow copies the canvas
# twice, the second time into its own picture.
_PIXEL_BYTES = 17


def read_webp(data: bytes) -> Container:
    """Check a WebP's chunks and read its orientation.

    Raises:
        ImageError: it is truncated, holds no picture, or is too large.
    """
    size: tuple[int, int] | None = None
    pages = 0
    exif = b""
    xmp = b""
    for kind, place, length in _chunks(data):
        if kind in (b"VP8X", b"VP8 ", b"VP8L") and size is None:
            size = _picture_size_of(kind, data[place : place + 10])
            check_page_size(*size, _PIXEL_BYTES)
        if kind == b"ANMF":
            pages = min(pages + 1, MAX_COUNTED_PAGES)
        elif kind == b"EXIF":
            exif = exif or data[place : place + length]
        elif kind == b"XMP ":
            xmp = xmp or data[place : place + length]
    if size is None:
        raise ImageError("the image is damaged: the WebP has no picture")
    orientation, notes = read_orientation(exif, xmp)
    pages = max(1, pages)
    return Container("WEBP", size, lambda: data, orientation, pages, (*page_note(pages), *notes))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, offset of the body, length of the body) of each chunk."""
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise ImageError(f"the image is truncated: the WebP ends at byte {len(data)} of {end}")
    place = 12
    for chunks in count():
        if place + 8 > end:
            return
        check_pieces(chunks, "chunks of a WebP")
        kind, length = struct.unpack_from("<4sI", data, place)
        if place + 8 + length > end:
            raise ImageError("the image is damaged: a chunk of the WebP ends beyond it")
        yield kind, place + 8, length
        place += 8 + length + length % 2


def _picture_size_of(kind: bytes, head: bytes) -> tuple[int, int]:
    """(width, height) from the first 10 bytes of a picture's chunk."""
    if len(head) < 10:
        raise ImageError("the image is damaged: the WebP has no size")
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (4, 7))
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 6)
    return width & 0x3FFF, height & 0x3FFF
