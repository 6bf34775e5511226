"""An image in bands of rows: what is done to its bytes then needs no second copy of it."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

_PIXELS = 1 << 18  # about 1 MB as RGB: it stays in the processor's cache


def bands_of(image: Image.Image) -> Iterator[bytes]:
    """The image's bytes, as `Image.tobytes` gives them, in bands from the top."""
    width, height = image.size
    rows = max(8, _PIXELS // max(1, width) // 8 * 8)  # whole bytes of 1-bit rows, too
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(top + rows, height))).tobytes()
