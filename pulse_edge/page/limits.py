"""How large a page may be: bytes, pixels, shape, scans and pages of a file."""

from __future__ import annotations

from typing import BinaryIO

from pulse_edge.errors import ImageError
from pulse_edge.guarded import read_upto

# What reading a page may take at its peak, beside the loaded model: the file, the copy of it that
# the decoder gets, and the decoder's and our own pictures.
MAX_MEMORY = 512_000_000  # bytes
MAX_FILE_BYTES = 64_000_000  # the file and one copy of it leave 384 MB for pictures
MAX_PIXELS = 36_000_000  # an A4 sheet at 600 dpi has 34.8 million
# What resizing or padding may make of a page on the way: the square round that A4 sheet has 49
# million. Both pictures together then take 384 MB.
MAX_RESIZED_PIXELS = 60_000_000
PICTURE_BYTES = 4  # Pillow keeps a colour pixel in these
PIXEL_BYTES = 2 * PICTURE_BYTES  # conversion, turning and resizing need a second picture
# The largest view of the model is about 1,000 pixels long. Of a longer shape it would show less
# than one row.
MAX_ELONGATION = 1_000
# libjpeg writes 10 scans of a colour page and 18 of a CMYK page. Each costs a pass over all pixels.
MAX_SCANS = 32
MAX_COUNTED_PAGES = 1_000  # a chain of pages is followed this far
# Python walks about a million pieces of a file in a second. Encoders write thousands at most.
MAX_PIECES = 100_000


def read_limited(file: BinaryIO) -> bytes:
    """All bytes of a file object, if they are not more than `MAX_FILE_BYTES`.

    Raises:
        ImageError: they are more, or the object returns text.
        OSError, ValueError: it cannot be read.
    """
    try:
        data = read_upto(file, MAX_FILE_BYTES + 1)
    except TypeError:
        raise ImageError(
            "the image's file object returns text; open it in binary mode ('rb')"
        ) from None
    check_file_size(len(data))
    return data


def check_file_size(size: int) -> None:
    """Refuse a file that is empty or over `MAX_FILE_BYTES`.

    Args:
        size: in bytes; of a file that was not read to its end, more than the limit.

    Raises:
        ImageError: the size is not accepted.
    """
    if size == 0:
        raise ImageError("the image is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise ImageError(
            f"more than the {MAX_FILE_BYTES:,} bytes accepted; save it compressed, or scale it down"
        )


def check_pieces(count: int, kind: str) -> None:
    """Refuse a file that is chopped so finely that walking it would take seconds.

    Args:
        count: pieces so far.
        kind: what messages call them.

    Raises:
        ImageError: they are more than `MAX_PIECES`.
    """
    if count > MAX_PIECES:
        raise ImageError(f"more than the {MAX_PIECES:,} {kind} accepted; save the image again")


def pixels_in_memory(pixel_bytes: float) -> int:
    """How many pixels may take `pixel_bytes` each, beside a file and one copy of it."""
    return int((MAX_MEMORY - 2 * MAX_FILE_BYTES) / pixel_bytes)


def check_page_size(width: int, height: int, pixel_bytes: float = PIXEL_BYTES) -> None:
    """Refuse a page by its header, before its pixels are decoded.

    Args:
        width: in pixels.
        height: in pixels.
        pixel_bytes: what decoding takes at its peak, in bytes for each pixel.

    Raises:
        ImageError: there are no pixels, too many, or they make too long a strip.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the image is {width} x {height} pixels")
    accepted = min(MAX_PIXELS, pixels_in_memory(pixel_bytes))
    if width * height > accepted:
        raise ImageError(
            f"{width} x {height} pixels, over the {accepted:,} accepted; scale it down"
        )
    if max(width, height) > MAX_ELONGATION * min(width, height):
        raise ImageError(
            f"{width} x {height} pixels, more elongated than the {MAX_ELONGATION:,} to 1 "
            "accepted; crop it"
        )
