"""Sizes and shapes of pages, and the memory that the largest of them take."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page.limits import (
    MAX_FILE_BYTES,
    MAX_MEMORY,
    MAX_PIXELS,
    check_file_size,
    check_page_size,
    check_pieces,
)
from pulse_edge.page.source import read_page

from support.image_files import chunk, encoded, png_file, tiff_file


def test_a_sheet_of_a4_at_600_dpi_is_accepted() -> None:
    check_page_size(4961, 7016)


@pytest.mark.parametrize(
    "size", [(1, 1), (1000, 1), (1, 1000), (6000, 6000), (1, 5), (180_000, 200)]
)
def test_sizes_that_are_accepted(size: tuple[int, int]) -> None:
    check_page_size(*size)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((6001, 6000), "6001 x 6000 pixels, over the 36,000,000 accepted; scale it down"),
        ((1001, 1), "1001 x 1 pixels, more elongated than the 1,000 to 1 accepted; crop it"),
        ((2, 2001), "2 x 2001 pixels, more elongated than the 1,000 to 1 accepted; crop it"),
        ((89_478_485, 1), "over the 36,000,000 accepted"),
        ((0, 5), "0 x 5 pixels"),
        ((5, -1), "5 x -1 pixels"),
    ],
)
def test_sizes_that_are_refused(size: tuple[int, int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        check_page_size(*size)


LONG = 30_000


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(png_file((LONG, 1), 8, 0, bytes(LONG + 1)), id="PNG"),
        pytest.param(png_file((1, LONG), 8, 0, bytes(LONG * 2)), id="PNG, tall"),
        pytest.param(encoded(Image.new("L", (LONG, 1)), "JPEG"), id="JPEG"),
        pytest.param(encoded(Image.new("L", (LONG, 1)), "TIFF"), id="TIFF"),
        pytest.param(encoded(Image.new("L", (1, LONG)), "BMP"), id="BMP"),
        pytest.param(encoded(Image.new("L", (16_000, 1)), "WEBP"), id="WEBP"),
        pytest.param(Image.new("L", (LONG, 1)), id="PIL"),
        pytest.param(np.zeros((1, LONG), np.uint8), id="numpy"),
        pytest.param(np.zeros((LONG, 2, 3), np.uint8), id="numpy, tall"),
    ],
)
def test_an_elongated_page_is_refused_from_every_source(source: object) -> None:
    with pytest.raises(ImageError, match="more elongated than the 1,000 to 1 accepted; crop it"):
        read_page(source)  # type: ignore[arg-type]


SCRIPT = """
import resource, sys
from pulse_edge.page.source import read_page
from PIL import Image
Image.init()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
page = read_page(sys.argv[1])
print(peak() - before)
"""


def stored(mode: str, form: str, path: Path, side: int) -> None:
    """A square page in its format's most expensive form, with an orientation to be turned by."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new(mode, (side, side))
    if mode in ("RGBA", "LA"):
        image.putalpha(100)
    options: dict[str, object] = {"exif": exif} if form != "BMP" else {}
    if form == "JPEG":
        options |= {"progressive": True, "subsampling": 0}
    if form == "TIFF":
        options |= {"compression": "tiff_adobe_deflate", "tiffinfo": {278: side}}
    image.save(path, form, **options)


@pytest.mark.parametrize(
    ("mode", "form", "share"),
    [
        ("RGBA", "PNG", 1.0),
        ("RGB", "JPEG", 1.0),
        ("CMYK", "JPEG", 0.88),
        ("RGBA", "TIFF", 1.0),
        ("RGB", "WEBP", 0.62),
    ],
)
def test_the_largest_page_of_each_kind_keeps_to_the_memory(
    mode: str, form: str, share: float, tmp_path: Path
) -> None:
    """At a ninth of the pixels, which must take a ninth of the memory, beside the decoder's code.

    The files are small. A large one and the copy of it take 128 of the 512 MB.
    """
    side = int((MAX_PIXELS * share / 9) ** 0.5)
    path = tmp_path / "page"
    stored(mode, form, path, side)
    command = [sys.executable, "-c", SCRIPT, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < (MAX_MEMORY - 2 * MAX_FILE_BYTES) / 9 + 6_000_000


def chopped() -> dict[str, bytes]:
    """Files of a few megabytes in pieces of a few bytes: each would take seconds to walk."""
    grey = Image.new("L", (64, 48))
    png = encoded(grey, "PNG")
    jpeg = encoded(grey, "JPEG")
    webp = encoded(Image.new("RGB", (64, 48)), "WEBP", lossless=True)
    empty = 4_000_000
    directories = tiff_file(np.zeros((48, 64), np.uint8), pages=50)
    padding = webp + b"JUNK\0\0\0\0" * (empty // 8)
    scan = jpeg.index(b"\xff\xda") + 10
    return {
        "PNG chunks": png[:33] + chunk(b"tEXt", b"") * (empty // 12) + png[33:],
        "PNG texts": png[:33] + BOMB * 800 + png[33:],
        "PNG profiles": png[:33] + RAW_BOMB * 800 + png[33:],
        "JPEG comments": jpeg[:2] + b"\xff\xfe\0\2" * (empty // 4) + jpeg[2:],
        "JPEG starts": jpeg[:2] + b"\xff\xd8" * (empty // 2) + jpeg[2:],
        "JPEG restarts": jpeg[:scan] + b"\xff\xd0" * (empty // 2) + jpeg[scan:],
        "WebP chunks": webp[:4] + struct.pack("<I", len(padding) - 8) + padding[8:],
        "TIFF values": tiff_file(np.zeros((48, 64), np.uint8), tags={258: (8,) * 400_000}),
        "TIFF tags": directories.replace(b"\x0a\0\0\1", b"\xff\xff\0\1") + bytes(empty),
    }


BOMB = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(8_000_000)))
RAW_BOMB = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(8_000_000)))


@pytest.mark.parametrize("kind", list(chopped()))
def test_a_finely_chopped_file_costs_no_time(kind: str) -> None:
    file = chopped()[kind]
    start = time.process_time()
    try:
        assert read_page(file).size == (64, 48)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("pixel_bytes", "limit"), [(8, 36_000_000), (10.7, 35_887_850), (17, 22_588_235)]
)
def test_the_memory_of_a_pixel_limits_their_number(pixel_bytes: float, limit: int) -> None:
    check_page_size(limit // 5000, 5000, pixel_bytes)
    with pytest.raises(ImageError, match=f"over the {limit:,} accepted"):
        check_page_size(limit // 5000 + 1, 5000, pixel_bytes)


@pytest.mark.parametrize("size", [(0, 0), (0, 1), (1, 0), (-1, -1), (-3, 2), (2, -3)])
def test_no_pixels_are_no_page(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"^the image is {size[0]} x {size[1]} pixels$"):
        check_page_size(*size)


def test_as_many_pieces_as_accepted() -> None:
    check_pieces(100_000, "pieces")
    with pytest.raises(ImageError, match=r"^more than the 100,000 pieces accepted; save the image"):
        check_pieces(100_001, "pieces")


def test_as_many_bytes_as_accepted() -> None:
    check_file_size(1)
    check_file_size(64_000_000)
    with pytest.raises(ImageError, match=r"^the image is empty \(0 bytes\)$"):
        check_file_size(0)
    with pytest.raises(ImageError, match=r"^more than the 64,000,000 bytes accepted"):
        check_file_size(64_000_001)
