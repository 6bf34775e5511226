"""How a page is turned upright: the orientation that EXIF or XMP names.

Only this one tag is read. A block that is damaged elsewhere, or that no program could write again,
therefore does not matter.
"""

from __future__ import annotations

import re

from PIL import Image

from pulse_edge.page.tiff_directory import read_directory, read_tiff_header

ORIENTATION_TAG = 0x0112  # EXIF and TIFF
_XMP = re.compile(rb'tiff:Orientation(?:\s*=\s*["\']|>)\s*([1-8])\b')
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DAMAGED_EXIF = "The EXIF block of the image is damaged: the page is shown as it is stored."


def read_orientation(exif: bytes, xmp: bytes = b"") -> tuple[int, tuple[str, ...]]:
    """(orientation 1 to 8, notes) of an image; 1 is upright.

    Args:
        exif: the EXIF block, with or without its `Exif` prefix; empty if there is none.
        xmp: the XMP packet, which counts if EXIF names no orientation.
    """
    block = exif.removeprefix(b"Exif\0\0")
    damaged = False
    if block:
        try:
            flavour, offset = read_tiff_header(block)
            directory = read_directory(block, flavour, offset)
            value = directory.integer(ORIENTATION_TAG, 0)
            if value or ORIENTATION_TAG in directory.tags:
                return legal_orientation(value), ()
            damaged = not directory.complete
        except ValueError:
            damaged = True
    match = _XMP.search(xmp)
    if match:
        return int(match[1]), ()
    return 1, (DAMAGED_EXIF,) if damaged else ()


def legal_orientation(value: int) -> int:
    """The value, or 1 for one that EXIF does not define."""
    return value if 1 <= value <= 8 else 1


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned and mirrored as its EXIF orientation asks."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
