"""The pixels of a checked file, decoded by Pillow and proven complete."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from pulse_edge.errors import ImageError
from pulse_edge.page.bands import bands_of, rows_of_band
from pulse_edge.page.bmp import read_bmp
from pulse_edge.page.container import Container
from pulse_edge.page.jpeg import JPEG_START, read_jpeg
from pulse_edge.page.libtiff import quiet_libtiff
from pulse_edge.page.limits import PICTURE_BYTES, pixels_in_memory
from pulse_edge.page.png import PNG_SIGNATURE, read_png
from pulse_edge.page.samples import eight_bit_grey
from pulse_edge.page.tiff import TIFF_STARTS, read_tiff
from pulse_edge.page.webp import read_webp


class _Format(NamedTuple):
    """An image format: its name, how its files start, and what checks one."""

    name: str
    starts: Callable[[bytes], bool]
    read: Callable[[bytes], Container]


_FORMATS = (
    _Format("PNG", lambda head: head.startswith(PNG_SIGNATURE), read_png),
    _Format("JPEG", lambda head: head.startswith(JPEG_START), read_jpeg),
    _Format("TIFF", lambda head: head.startswith(TIFF_STARTS), read_tiff),
    _Format("BMP", lambda head: head.startswith(b"BM"), read_bmp),
    _Format("WEBP", lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", read_webp),
)
FORMATS = tuple(form.name for form in _FORMATS)


def read_container(data: bytes, page: int = 1) -> Container:
    """Check an image file without decoding its picture.

    Args:
        data: of the file.
        page: number of the page, from 1. Only a TIFF has others than the first.

    Raises:
        ImageError: of no known format, damaged, truncated, too large, or of a kind not read.
    """
    for form in _FORMATS:
        if form.starts(data[:12]):
            if page == 1:
                return form.read(data)
            if form.name == "TIFF":
                return read_tiff(data, page)
            raise ImageError(f"no page {page:,}; of a {form.name} only page 1 is read")
    raise ImageError(f"not an image that can be read ({', '.join(FORMATS)})")


def decode_picture(container: Container) -> tuple[Image.Image, tuple[str, ...]]:
    """(image, notes): the picture in one of Pillow's 8-bit modes, as it is stored.

    Raises:
        ImageError: rows are missing, or it is of a kind that is not read.
        Exception: nearly any, from Pillow's decoders, for a damaged file.
    """
    for strip in container.strips():
        _decode_proven(strip)
    image = _decode_proven(container)
    transparent = container.transparent
    if transparent is not None and image.mode == "I;16":
        clear = np.asarray(image) == transparent
        grey, notes = eight_bit_grey(image)
        return _with_alpha(grey, clear), notes
    if transparent is not None:
        image.info["transparency"] = transparent
    return eight_bit_grey(image, container.bits, container.signed, container.inverted)


def _decode_proven(container: Container) -> Image.Image:
    """The picture, unless noise behind its data shows in it: rows are missing then."""
    if container.probe is None:
        return _load(container, container.picture())
    width, height = container.size
    probe = _load(container, container.probe())
    # Checksums take three times as long as a comparison, but no second picture.
    if width * height <= pixels_in_memory(2 * PICTURE_BYTES + container.pixel_bytes):
        image = _load(container, container.picture())
        same = _are_equal(image, probe)
    else:
        checksum = _checksum(probe)
        del probe
        image = _load(container, container.picture())
        same = _checksum(image) == checksum
    if not same:
        raise ImageError(f"the image is truncated: rows of its {container.format} are missing")
    return image


def _load(container: Container, file: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(file), formats=[container.format])
    except UnidentifiedImageError:
        raise ImageError(
            f"a {container.format} file that is damaged, or of an unusual kind; save it as PNG"
        ) from None
    if image.size != container.size:
        shown = " x ".join(map(str, image.size))
        raise ImageError(f"the image is damaged: its {container.format} has two sizes ({shown})")
    with quiet_libtiff() if container.format == "TIFF" else nullcontext():
        image.load()
    return image


def _checksum(image: Image.Image) -> int:
    total = 0
    for band in bands_of(image):
        total = zlib.crc32(band, total)
    return total


def _are_equal(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures of one mode and size have the same pixels."""
    width, height = one.size
    rows = rows_of_band(width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        if ImageChops.difference(one.crop(box), other.crop(box)).getbbox(alpha_only=False):
            return False
    return True


def _with_alpha(grey: Image.Image, clear: np.ndarray) -> Image.Image:
    """Grey with an alpha channel that is 0 where `clear` is true."""
    alpha = Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))
