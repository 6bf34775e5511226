"""Image files written by hand: what no encoder at hand writes, and what damage makes of files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_file(
    size: tuple[int, int],
    bits: int,
    colour: int,
    rows: bytes,
    before: bytes = b"",
    after: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG of filtered rows, with whole chunks before and after the picture."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced)
    picture = chunk(b"IDAT", zlib.compress(rows))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + before + picture + after + chunk(b"IEND", b"")


def unfiltered(samples: np.ndarray) -> bytes:
    """Rows of a PNG: a filter byte 0, then the samples, big-endian."""
    big = samples.astype(samples.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in big)


def with_chunk(png: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    head = len(PNG_SIGNATURE) + 25
    return png[:head] + chunk(kind, body) + png[head:]


def exif_block(orientation: int, order: str = "<", extra: bytes = b"") -> bytes:
    """EXIF with an orientation, and bytes behind its directory."""
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    head = mark + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 1) + entry + struct.pack(order + "I", 0) + extra


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def cut_jpeg(jpeg: bytes, share: float) -> bytes:
    """A JPEG of which a share of the picture's bytes is left, with an end marker."""
    start = jpeg.index(b"\xff\xda") + 14
    return jpeg[: start + int((len(jpeg) - 2 - start) * share)].rstrip(b"\xff") + b"\xff\xd9"


def tiff_file(
    samples: np.ndarray,
    order: Literal["<", ">"] = "<",
    tags: dict[int, int | tuple[int, ...]] | None = None,
    big: bool = False,
    pages: int = 1,
) -> bytes:
    """An uncompressed TIFF of one strip a page.

    Args:
        samples: [height, width] or [height, width, samples] of any numpy type.
        order: "<" or ">".
        tags: more tags, or other values; 16-bit values where they fit.
        big: BigTIFF.
        pages: how often the page's directory is repeated.
    """
    height, width = samples.shape[:2]
    depth = samples.shape[2] if samples.ndim == 3 else 1
    pixels = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    head = 16 if big else 8
    formats = {"u": 1, "i": 2, "f": 3}
    values: dict[int, int | tuple[int, ...]] = {
        256: width,
        257: height,
        258: (samples.dtype.itemsize * 8,) * depth,
        259: 1,
        262: 1 if depth == 1 else 2,
        273: head,
        277: depth,
        278: height,
        279: len(pixels),
        339: formats[samples.dtype.kind],
    }
    values |= tags or {}
    mark = b"II" if order == "<" else b"MM"
    body = bytearray(pixels + b"\0" * (len(pixels) % 2))
    places = []
    for _ in range(pages):
        places.append(head + len(body))
        body += _directory(values, order, big, head + len(body))
    width_of_offset = 8 if big else 4
    for place, following in zip(places, [*places[1:], 0], strict=True):
        count = struct.unpack_from(order + ("Q" if big else "H"), body, place - head)[0]
        end = place - head + (8 + 20 * count if big else 2 + 12 * count)
        struct.pack_into(order + ("Q" if big else "I"), body, end, following)
    if big:
        start = mark + struct.pack(order + "HHHQ", 43, width_of_offset, 0, places[0])
    else:
        start = mark + struct.pack(order + "HI", 42, places[0])
    return start + bytes(body)


def _directory(
    values: dict[int, int | tuple[int, ...]], order: str, big: bool, place: int
) -> bytes:
    """A directory that will lie at `place`, with the values that do not fit behind it."""
    offset = "Q" if big else "I"
    inline = struct.calcsize("=" + offset)
    size = 4 + 2 * inline
    head = struct.pack(order + ("Q" if big else "H"), len(values))
    behind = place + len(head) + size * len(values) + inline
    entries = b""
    rest = b""
    for number, value in sorted(values.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        wide = max(numbers) > 0xFFFF
        data = struct.pack(f"{order}{len(numbers)}{'I' if wide else 'H'}", *numbers)
        entries += struct.pack(order + "HH" + offset, number, 4 if wide else 3, len(numbers))
        if len(data) > inline:
            entries += struct.pack(order + offset, behind + len(rest))
            rest += data + b"\0" * (len(data) % 2)
        else:
            entries += data.ljust(inline, b"\0")
    return head + entries + b"\0" * inline + rest
