"""BMP: headers of every kind, and run-length coded files, which Pillow expands slowly."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pulse_edge.errors import ImageError
from pulse_edge.page.picture import read_container
from pulse_edge.page.source import read_page

from goldens import cases
from support.image_files import encoded

SMALL = cases.page(40, 30)
BMP = encoded(SMALL, "BMP")


def bmp(width: int, height: int, bits: int, compression: int, body: bytes) -> bytes:
    """A BMP of the usual 40-byte header, with a grey palette where 8 bits need one."""
    palette = b"".join(bytes((v, v, v, 0)) for v in range(256)) if bits == 8 else b""
    start = 54 + len(palette)
    sizes = struct.pack("<iiHHIIiiII", width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    return head + struct.pack("<I", 40) + sizes + palette + body


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_modes_are_read_as_pillow_reads_them(mode: str) -> None:
    image = SMALL.quantize(16) if mode == "P" else SMALL.convert(mode)
    page = read_page(encoded(image, "BMP"))
    assert np.array_equal(np.asarray(page.image), np.asarray(image.convert("RGB")))


def test_a_negative_height_means_the_top_row_first() -> None:
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    page = read_page(bmp(4, -3, 8, 0, rows.tobytes()))
    assert np.array_equal(np.asarray(page.image)[..., 0], rows)


def test_an_unused_fourth_byte_is_no_transparency() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    page = read_page(bmp(4, 4, 32, 0, pixels.tobytes()))
    assert (page.alpha, np.asarray(page.image).max()) == ("none", 0)


def test_runs_are_expanded() -> None:
    page = read_page(bmp(4, 2, 8, 1, b"\4\7\0\0\4\x09\0\1"))
    assert np.asarray(page.image)[..., 0].tolist() == [[9] * 4, [7] * 4]


def test_a_large_file_of_runs_is_refused() -> None:
    with pytest.raises(ImageError, match=r"run-length coded BMP .*save it as PNG"):
        read_page(bmp(6000, 6000, 8, 1, b"\1\7" * 1_000_001))


@pytest.mark.parametrize("length", [2, 14, 18, 25, 29, 40, 54, 200, len(BMP) - 1])
def test_a_truncated_bmp_is_refused(length: int) -> None:
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        read_page(BMP[:length])


@pytest.mark.parametrize("size", [(60_000, 60_000), (60_000, -60_000), (-5, 5), (0, 5)])
def test_sizes_are_refused_by_the_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"accepted|x 5 pixels"):
        read_page(bmp(*size, 24, 0, b""))


def test_an_os2_header_is_read() -> None:
    body = np.arange(12, dtype=np.uint8).tobytes() * 3
    head = b"BM" + struct.pack("<IHHI", 26 + 36, 0, 0, 26) + struct.pack("<IHHHH", 12, 4, 3, 1, 24)
    assert read_page(head + body).size == (4, 3)


def test_the_smallest_files() -> None:
    """A pixel behind OS/2's header takes 30 bytes; nothing shorter is a picture."""
    head = b"BM" + struct.pack("<IHHI", 30, 0, 0, 26) + struct.pack("<IHHHH", 12, 1, 1, 1, 24)
    page = read_page(head + b"\1\2\3\0")
    assert np.asarray(page.image).tolist() == [[[3, 2, 1]]]
    with pytest.raises(
        ImageError, match=r"^29 bytes: the image is truncated: the BMP ends at byte"
    ):
        read_page(head + b"\1\2\3")


@pytest.mark.parametrize("compression", [1, 2])
def test_two_megabytes_of_runs_are_accepted(compression: int) -> None:
    bits = 8 if compression == 1 else 4
    file = bmp(100, 100, bits, compression, b"")
    file += bytes(2_000_000 - len(file))
    assert read_container(file).size == (100, 100)
    with pytest.raises(ImageError, match="BMP of 2,000,001 bytes, over the 2,000,000 accepted"):
        read_container(file + b"\0")
    assert read_container(bmp(100, 100, 8, 0, bytes(3_000_000))).size == (100, 100)
    core = b"BM" + struct.pack("<IHHI", 30, 0, 0, 26) + struct.pack("<IHHHH", 12, 1, 1, 1, 24)
    assert read_container(core + bytes(3_000_000)).size == (1, 1)
