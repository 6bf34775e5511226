"""PNG files: every checksum and every row checked, metadata set aside.

Pillow checks the chunks before the picture only, and leaves missing rows black. Each chunk has a
CRC-32 and the picture an Adler-32, so a flipped bit anywhere is found here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from pulse_edge.errors import ImageError
from pulse_edge.page.container import Container, page_note
from pulse_edge.page.limits import check_page_size, check_pieces
from pulse_edge.page.orientation import read_orientation

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour type -> (samples of a pixel, legal bits of a sample).
_COLOURS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
_GREY, _RGB, _PALETTE = 0, 2, 3
# Adam7: (first column, first row, column step, row step) of each pass.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_INFLATED = 1 << 18  # bytes at a time: they stay in the processor's cache
_MAX_METADATA = 1 << 20  # bytes of XMP or of EXIF as text, inflated
_RAW_EXIF = b"Raw profile type exif"  # how ImageMagick writes EXIF


class _Header(NamedTuple):
    width: int
    height: int
    bits: int
    colour: int
    interlaced: bool


@dataclass
class _Chunks:
    """The chunks that matter, gathered in their order."""

    header: _Header | None = None
    palette: memoryview | None = None
    transparency: bytes = b""
    picture: list[memoryview] = field(default_factory=list)
    # Of each kind the first counts: inflating them all could take minutes.
    exif: bytes | None = None
    xmp: bytes | None = None
    frames: int = 0
    animated_picture: bool = False  # whether the still picture is the animation's first frame


def read_png(data: bytes) -> Container:
    """Check a PNG and set its metadata aside.

    Raises:
        ImageError: it is damaged, incomplete, too large, or of a kind that is not in the standard.
    """
    chunks = _Chunks()
    for kind, body in _checked_chunks(data):
        _take(chunks, kind, body)
    header = chunks.header
    if header is None or not chunks.picture:
        raise ImageError("the image is damaged: the PNG has no picture")
    if header.colour == _PALETTE and chunks.palette is None:
        raise ImageError("the image is damaged: the PNG has no palette")
    _check_picture(chunks.picture, header)
    orientation, notes = read_orientation(chunks.exif or b"", chunks.xmp or b"")
    pages = max(1, chunks.frames + (not chunks.animated_picture))
    return Container(
        "PNG",
        (header.width, header.height),
        lambda: _bare_png(chunks, header),
        orientation,
        pages,
        (*page_note(pages), *notes),
        transparent=_transparent_colour(chunks.transparency, header),
    )


def _checked_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(type, body) of each chunk up to the end chunk."""
    view = memoryview(data)
    place = len(PNG_SIGNATURE)
    for chunks in count():
        check_pieces(chunks, "chunks of a PNG")
        length, kind = struct.unpack(">I4s", _exactly(view, place, 8))
        body = _exactly(view, place + 8, length)
        stored = struct.unpack(">I", _exactly(view, place + 8 + length, 4))[0]
        if zlib.crc32(view[place + 4 : place + 8 + length]) != stored:
            name = kind.decode("ascii", "replace") if kind.isalpha() else repr(kind)
            raise ImageError(f"the image is damaged: the checksum of PNG chunk {name} is wrong")
        if kind == b"IEND":
            return
        yield kind, body
        place += 12 + length


def _exactly(view: memoryview, place: int, length: int) -> memoryview:
    part = view[place : place + length]
    if len(part) < length:
        raise ImageError(f"the image is truncated: the PNG ends at byte {len(view)}")
    return part


def _take(chunks: _Chunks, kind: bytes, body: memoryview) -> None:
    if (kind == b"IHDR") != (chunks.header is None):
        raise ImageError("the image is damaged: a PNG begins with one IHDR chunk")
    if kind == b"IHDR":
        chunks.header = _read_header(body)
    elif kind == b"PLTE":
        chunks.palette = body
    elif kind == b"IDAT":
        chunks.picture.append(body)
        chunks.animated_picture |= len(chunks.picture) == 1 and chunks.frames == 1
    elif kind == b"tRNS":
        chunks.transparency = bytes(body)
    elif kind == b"fcTL":
        chunks.frames += 1
    elif kind == b"eXIf":
        chunks.exif = bytes(body) if chunks.exif is None else chunks.exif
    elif kind in (b"iTXt", b"tEXt", b"zTXt"):
        _take_text(chunks, kind, bytes(body[:80]), body)
    elif kind[:1].isupper():
        name = kind.decode("ascii", "replace")
        raise ImageError(f"PNG chunk {name} is not in the standard; save it again as PNG")


def _take_text(chunks: _Chunks, kind: bytes, head: bytes, body: memoryview) -> None:
    """Keep the text chunks in which some programs store an orientation."""
    if kind == b"iTXt" and chunks.xmp is None and head.startswith(b"XML:com.adobe.xmp\0"):
        compressed = head[18:19] == b"\1"
        # Flags, language and translated keyword come before the text, which is XML.
        _, _, text = bytes(body[20:]).partition(b"\0")
        _, _, text = text.partition(b"\0")
        chunks.xmp = _inflated_text(text) if compressed else text
    elif kind != b"iTXt" and chunks.exif is None and head.startswith(_RAW_EXIF + b"\0"):
        text = bytes(body[len(_RAW_EXIF) + 1 :])
        text = _inflated_text(text[1:]) if kind == b"zTXt" else text
        digits = b"".join(text.split(b"\n")[3:])
        legal = re.fullmatch(rb"(?:[0-9a-fA-F]{2})*", digits)
        chunks.exif = bytes.fromhex(digits.decode()) if legal else b""


def _inflated_text(data: bytes) -> bytes:
    """The text, cut at a limit; none if it is damaged, as metadata may be."""
    try:
        return zlib.decompressobj().decompress(data, _MAX_METADATA)
    except zlib.error:
        return b""


def _read_header(body: memoryview) -> _Header:
    if len(body) != 13:
        raise ImageError(f"the image is damaged: PNG chunk IHDR has {len(body)} bytes, not 13")
    width, height, bits, colour, packing, filters, interlace = struct.unpack(">IIBBBBB", body)
    if bits not in _COLOURS.get(colour, (0, ()))[1] or packing or filters or interlace > 1:
        raise ImageError(
            f"PNG of colour type {colour} with {bits} bits, compression {packing}, filter "
            f"{filters} and interlace {interlace} is not in the standard; save it again as PNG"
        )
    check_page_size(width, height)
    return _Header(width, height, bits, colour, interlace == 1)


def _picture_size(header: _Header) -> int:
    """Bytes of the inflated picture: rows with a filter byte each."""
    bits = header.bits * _COLOURS[header.colour][0]
    passes = _PASSES if header.interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns = -(-(header.width - left) // across)
        rows = -(-(header.height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _check_picture(parts: list[memoryview], header: _Header) -> None:
    """Inflate the picture without keeping it: it must have its size and its Adler-32."""
    expected = _picture_size(header)
    inflater = zlib.decompressobj()
    size = 0
    try:
        for part in parts:
            rest: memoryview | bytes = part
            while rest and not inflater.eof and size <= expected:
                size += len(inflater.decompress(rest, _INFLATED))
                rest = inflater.unconsumed_tail
    except zlib.error as error:
        reason = str(error).rpartition(": ")[2]
        raise ImageError(
            f"the image is damaged: its PNG data cannot be inflated ({reason})"
        ) from None
    if size > expected:
        raise ImageError("the image is damaged: the PNG holds more rows than its header says")
    if size < expected or not inflater.eof:
        share = f"{size:,} of {expected:,} bytes"
        raise ImageError(f"the image is truncated: the PNG holds {share} of its picture")


def _transparent_colour(transparency: bytes, header: _Header) -> int | tuple[int, int, int] | None:
    """The transparent colour of a grey or RGB picture, at Pillow's scale of its samples."""
    if header.colour == _GREY and len(transparency) >= 2:
        highest = (1 << header.bits) - 1
        value: int = struct.unpack(">H", transparency[:2])[0] & highest
        return value * 255 // highest if header.bits < 16 else value
    if header.colour == _RGB and len(transparency) >= 6:
        if header.bits == 16:
            raise ImageError("a 16-bit PNG with a transparent colour; save it with 8 bits a sample")
        return transparency[1], transparency[3], transparency[5]
    return None


def _bare_png(chunks: _Chunks, header: _Header) -> bytes:
    """The PNG with the chunks that make its picture. A palette keeps its own transparency."""
    parts: list[bytes | memoryview] = [PNG_SIGNATURE]
    interlace = int(header.interlaced)
    fields = (header.width, header.height, header.bits, header.colour, 0, 0, interlace)
    parts += _chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))
    if header.colour == _PALETTE and chunks.palette is not None:
        parts += _chunk(b"PLTE", chunks.palette)
        if chunks.transparency:
            parts += _chunk(b"tRNS", chunks.transparency)
    for part in chunks.picture:
        parts += _chunk(b"IDAT", part)
    parts += _chunk(b"IEND", b"")
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes | memoryview) -> list[bytes | memoryview]:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return [struct.pack(">I", len(body)), kind, body, struct.pack(">I", checksum)]
