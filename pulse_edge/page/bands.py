"""An image in bands of rows: what is done to its bytes then needs no second copy of it."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

_PIXELS = 1 << 18  # about 1 MB as RGB: it stays in the processor's cache


def rows_of_band(width: int) -> int:
    """Rows of a band of an image: whole bytes of 1-bit rows, too."""
    return max(8, _PIXELS // max(1, width) // 8 * 8)


def bands_of(image: Image.Image) -> Iterator[bytes]:
    """The image's bytes, as `Image.tobytes` gives them, in bands from the top."""
    width, height = image.size
    rows = rows_of_band(width)
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height))).tobytes()
