"""The one tag of EXIF that counts, in blocks that are odd elsewhere or broken."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pulse_edge.page.orientation import DAMAGED_EXIF, read_orientation
from pulse_edge.page.source import read_page

from goldens import cases
from support.image_files import encoded, exif_block, with_chunk

SMALL = cases.page(40, 30)
TEXT_FOR_A_NUMBER = struct.pack("<HHI4s", 0x0128, 2, 4, b"cm\0\0")  # ResolutionUnit
FAR = struct.pack("<HHII", 0x010F, 2, 5000, 0xFFFFFF)  # Make, far outside
UNKNOWN = struct.pack("<HHII", 0x9999, 77, 1 << 31, 3)
FRACTION = struct.pack("<HHII", 0x011A, 5, 1, 4)  # XResolution that overlaps the directory
ORIENTATION = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
ENDLESS = struct.pack("<HHII", 0x8769, 4, 1, 8)  # a sub-directory that is the directory itself


def block(*entries: bytes, count: int | None = None) -> bytes:
    number = len(entries) if count is None else count
    return b"II*\0\x08\0\0\0" + struct.pack("<H", number) + b"".join(entries)


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(block(ORIENTATION), id="alone"),
        pytest.param(block(TEXT_FOR_A_NUMBER, ORIENTATION), id="text for a number"),
        pytest.param(block(FAR, ORIENTATION), id="values outside"),
        pytest.param(block(UNKNOWN, ORIENTATION), id="unknown type"),
        pytest.param(block(FRACTION, ORIENTATION), id="overlap"),
        pytest.param(block(ORIENTATION, ENDLESS), id="endless"),
        pytest.param(block(ORIENTATION, count=60_000), id="more entries announced"),
        pytest.param(block(ORIENTATION, ORIENTATION.replace(b"\6", b"\3")), id="twice"),
        pytest.param(block(struct.pack("<HHII", 0x0112, 4, 1, 6)), id="as 32-bit number"),
        pytest.param(block(struct.pack("<HHIBBH", 0x0112, 1, 1, 6, 0, 0)), id="as byte"),
        pytest.param(block(struct.pack("<HHIHH", 0x0112, 3, 2, 6, 0)), id="two values"),
        pytest.param(block(ORIENTATION) + b"\xff" * 9000, id="garbage behind"),
        pytest.param(exif_block(6, ">"), id="big-endian"),
        pytest.param(b"Exif\0\0" + block(ORIENTATION), id="prefixed"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_orientation_is_applied_whatever_else_is_wrong(exif: bytes) -> None:
    assert read_orientation(exif) == (6, ())
    for file in (
        with_chunk(encoded(SMALL, "PNG"), b"eXIf", exif),
        encoded(SMALL, "WEBP", lossless=True, exif=exif),
    ):
        page = read_page(file)
        assert (page.orientation, page.notes) == (6, ())
        assert np.array_equal(np.asarray(page.image), np.rot90(np.asarray(SMALL), -1))
    jpeg = encoded(SMALL, "JPEG", exif=b"Exif\0\0" + exif.removeprefix(b"Exif\0\0"))
    assert read_page(jpeg).size == (30, 40)


@pytest.mark.parametrize(
    "exif",
    [
        b"garbage",
        b"II",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\0\0\0\0",
        b"II+\0\x08\0\0\0",
        b"XX*\0\x08\0\0\0\0\0",
        block(count=3),
        block(FAR, count=9),
        block(ORIENTATION)[:-4],
        block(struct.pack("<HHII", 0x0112, 3, 9, 0xFFFF)),
        b"\xff" * 3000,
    ],
)
@pytest.mark.filterwarnings("error")
def test_of_a_broken_block_nothing_is_applied_and_that_is_said(exif: bytes) -> None:
    assert read_orientation(exif) == (1, (DAMAGED_EXIF,))
    page = read_page(with_chunk(encoded(SMALL, "PNG"), b"eXIf", exif))
    assert page.sha256 == read_page(SMALL).sha256
    assert page.notes == (DAMAGED_EXIF,)


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_values_that_exif_does_not_define_are_upright(value: int) -> None:
    assert read_orientation(exif_block(value)) == (1, ())


@pytest.mark.parametrize(
    ("exif", "xmp", "expected"),
    [
        (b"", b'<x tiff:Orientation="8"/>', 8),
        (b"", b"<tiff:Orientation>3</tiff:Orientation>", 3),
        (b"", b"<x tiff:Orientation = '5'/>", 5),
        (b"", b'<x tiff:Orientation="9"/>', 1),
        (b"", b'<x tiff:Orientation="66"/>', 1),
        (exif_block(6), b'<x tiff:Orientation="8"/>', 6),
        (exif_block(1), b'<x tiff:Orientation="8"/>', 1),
        (b"garbage", b'<x tiff:Orientation="8"/>', 8),
        (b"", b"", 1),
    ],
)
def test_xmp_counts_where_exif_names_no_orientation(exif: bytes, xmp: bytes, expected: int) -> None:
    assert read_orientation(exif, xmp) == (expected, ())


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_images_that_pillow_opened_are_turned_once(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(SMALL, form, exif=exif, **options)
    for load in (False, True):
        image = Image.open(io.BytesIO(file))
        if load:
            image.load()
        assert read_page(image).sha256 == read_page(file).sha256


def test_a_pillow_image_of_broken_exif_is_shown_as_stored() -> None:
    image = SMALL.copy()
    image.info["exif"] = b"garbage"
    page = read_page(image)
    assert (page.sha256, page.orientation) == (read_page(SMALL).sha256, 1)
