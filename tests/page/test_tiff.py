"""TIFF: deep and signed samples, strips that lie, odd tags, several pages, and libtiff's voice."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page.source import read_page

from goldens import cases
from support.image_files import encoded, exif_block, tiff_file

SMALL = cases.page(40, 30)
GREY = np.asarray(SMALL.convert("L"))
DEEP = GREY.astype(np.uint16) * 257
SIGNED = (DEEP.astype(np.int32) - 32768).astype(np.int16)
ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")


def page_of(file: bytes) -> np.ndarray:
    """The page's grey values; its three channels must be equal."""
    rgb = np.asarray(read_page(file).image)
    assert (rgb == rgb[..., :1]).all()
    return rgb[..., 0]


# --- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("order", ORDERS, ids=["little", "big"])
@pytest.mark.parametrize(
    ("samples", "tags"),
    [
        pytest.param(DEEP, {}, id="unsigned"),
        pytest.param(0xFFFF - DEEP, {262: 0}, id="white is zero"),
        pytest.param(SIGNED, {}, id="signed"),
        pytest.param(-1 - SIGNED, {262: 0}, id="signed, white is zero"),
        pytest.param((DEEP >> 1).astype(np.int16), {}, id="signed, none negative"),
        pytest.param(GREY, {}, id="8 bits"),
        pytest.param(255 - GREY, {262: 0}, id="8 bits, white is zero"),
        pytest.param((GREY.astype(np.int16) - 128).astype(np.int8), {}, id="8 bits, signed"),
    ],
)
def test_grey_samples_become_an_8_bit_page(
    samples: np.ndarray, tags: dict[int, Any], order: Literal["<", ">"], big: bool
) -> None:
    file = tiff_file(samples, order, tags, big)
    assert np.array_equal(page_of(file), GREY)
    signed = ("The image has signed samples",) if samples.dtype.kind == "i" else ()
    assert tuple(note[:28] for note in read_page(file).notes) == signed


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_16_bit_grey_is_its_high_byte(compression: str) -> None:
    file = encoded(Image.fromarray(DEEP), "TIFF", compression=compression)
    assert np.array_equal(page_of(file), GREY)


@pytest.mark.parametrize("order", ORDERS)
def test_16_bit_colours_are_their_high_bytes(order: Literal["<", ">"]) -> None:
    rgb = np.asarray(SMALL)
    page = read_page(tiff_file(rgb.astype(np.uint16) * 257, order))
    assert np.array_equal(np.asarray(page.image), rgb)


def test_a_page_of_12_bit_samples_in_16_bits_is_read_with_a_note() -> None:
    page = read_page(tiff_file(DEEP >> 4))
    assert page.notes == (
        "The 16-bit samples of the image reach 4,095 of 65,535: it is dark.",
    ) or (page.notes[0].startswith("The 16-bit samples of the image reach"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (GREY.astype(np.float32) / 255, "32-bit samples that are floating point; save it"),
        (GREY.astype(np.float64), "64-bit samples that are floating point; save it"),
        (GREY.astype(np.float16), "16-bit samples that are floating point; save it"),
        (GREY.astype(np.uint32), "32-bit samples, not 1 to 16 bits and alike; save it"),
        (GREY.astype(np.int32), "32-bit samples, not 1 to 16 bits and alike; save it"),
        (np.asarray(SMALL).astype(np.float32), "floating point; save it"),
        (np.asarray(SMALL).astype(np.int16), "signed colours; save it"),
    ],
)
def test_other_samples_are_refused_by_name(
    samples: np.ndarray, message: str, order: Literal["<", ">"]
) -> None:
    with pytest.raises(ImageError, match=message):
        read_page(tiff_file(samples, order))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({339: 6}, "complex"),
        ({258: (8, 4, 8)}, "4-bit and 8-bit samples"),
        ({277: 7}, "7 samples a pixel"),
        ({277: 60000}, "60000 samples a pixel"),
        ({259: 6}, "compression 6, not one of none, CCITT"),
        ({259: 50001}, "compression 50001"),
        ({262: 32844}, "damaged, or of an unusual kind; save it as PNG"),
    ],
)
def test_other_kinds_of_tiff_are_refused_by_name(tags: dict[int, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_page(tiff_file(np.asarray(SMALL), tags=tags))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
def test_modes_are_read_as_pillow_reads_them(mode: str) -> None:
    image = SMALL.quantize(16) if mode == "P" else SMALL.convert(mode)
    file = encoded(image, "TIFF")
    assert np.array_equal(np.asarray(read_page(file).image), np.asarray(image.convert("RGB")))


def test_lab_colours_are_refused_by_name() -> None:
    lab = Image.merge("LAB", [SMALL.convert("L")] * 3)
    for source in (lab, encoded(lab, "TIFF")):
        with pytest.raises(ImageError, match="CIE Lab colours; save it as RGB"):
            read_page(source)


# --- strips and tiles -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({279: 1199}, "lies outside the file"),
        ({279: 0}, "lies outside the file"),
        ({279: 70_000_000}, "lies outside the file"),
        ({273: 60_000}, "lies outside the file"),
        ({273: 0}, "lies outside the file"),
        ({278: 15}, "1 strips or tiles and 1 sizes of them, not 2"),
        ({278: 1}, "not 30"),
        ({273: (8, 8), 279: (600, 600)}, "2 strips or tiles"),
        ({273: (8, 8)}, "2 strips or tiles and 1 sizes"),
        ({257: 31}, "lies outside the file|not 2"),
        ({257: 60_000, 278: 1}, "not 60,000|elongated"),
        ({322: 1, 323: 1, 324: 8, 325: 1200}, "tiles of 1 x 1"),
        ({322: 0, 323: 16, 324: 8, 325: 1200}, "tiles of 0 x 16"),
        ({322: 65535, 323: 65535, 324: 8, 325: 1200}, "tiles of 65535 x 65535"),
        ({322: 16, 323: 16, 324: 8, 325: 1200}, "not 6"),
        ({284: 2, 277: 2, 258: (8, 8), 338: 0}, "not 2"),
    ],
)
def test_strips_that_do_not_make_the_page_are_refused(
    tags: dict[int, Any], message: str, order: Literal["<", ">"]
) -> None:
    with pytest.raises(ImageError, match=message):
        read_page(tiff_file(GREY, order, tags))


def test_strips_of_several_rows_and_a_shorter_last_one_are_read() -> None:
    starts = tuple(8 + 40 * row for row in range(0, 30, 7))
    sizes = (280, 280, 280, 280, 80)
    assert np.array_equal(page_of(tiff_file(GREY, tags={273: starts, 278: 7, 279: sizes})), GREY)


def test_tiles_are_read() -> None:
    padded = np.zeros((32, 48), np.uint8)
    padded[:30, :40] = GREY
    tiles = [padded[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)]
    pixels = np.concatenate([tile.reshape(-1) for tile in tiles]).reshape(1, -1)
    tags: dict[int, Any] = {
        256: 40,
        257: 30,
        322: 16,
        323: 16,
        324: tuple(8 + 256 * index for index in range(6)),
        325: (256,) * 6,
    }
    assert np.array_equal(page_of(tiff_file(pixels, tags=tags)), GREY)


@pytest.mark.parametrize("rows", [8, 16, 300])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_half_a_jpeg_inside_a_tiff_is_refused(mode: str, rows: int) -> None:
    page = cases.page(64, 64).convert(mode)
    file = encoded(page, "TIFF", compression="jpeg", tiffinfo={278: rows})
    assert read_page(file).size == (64, 64)
    tags = Image.open(io.BytesIO(file)).tag_v2  # type: ignore[attr-defined]
    end = tags[273][-1] + tags[279][-1] - 2
    cut = bytearray(file)
    assert cut[end : end + 2] == b"\xff\xd9"
    cut[end - 60 : end + 2] = b"\xff\xd9" + bytes(60)
    with pytest.raises(ImageError, match="truncated: rows of its JPEG are missing"):
        read_page(bytes(cut))


@pytest.mark.parametrize(
    "compression",
    ["tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4"],
)
def test_libtiff_says_nothing_on_stderr(compression: str, tmp_path: Path) -> None:
    """Of a page whose last strip is damaged. What Pillow makes of it is not looked at."""
    image = cases.page(300, 200).convert("1" if compression.startswith("group") else "RGB")
    file = bytearray(encoded(image, "TIFF", compression=compression))
    file[len(file) // 2 : len(file) // 2 + 2000] = bytes(2000)
    (tmp_path / "page.tif").write_bytes(file)
    script = (
        "import sys; from pulse_edge.page.source import read_page\n"
        "try: read_page(sys.argv[1])\n"
        "except Exception as error: print(error)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "page.tif")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert ran.stdout.count("\n") <= 1


# --- tags and pages -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "tags",
    [
        {282: (1, 2, 3)},
        {296: (2, 2, 2)},
        {34665: 60_000},
        {34853: 4},
        {700: 5},
        {34675: 9},
        {270: 7},
        {305: (1,) * 2000},
        {65000: (1,) * 5000},
        {330: 8},
        {37724: 1},
        {33723: 2},
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_a_sound_page_is_read_whatever_its_other_tags(
    tags: dict[int, Any], order: Literal["<", ">"]
) -> None:
    assert np.array_equal(page_of(tiff_file(GREY, order, tags)), GREY)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
def test_an_orientation_is_applied_once(orientation: int, order: Literal["<", ">"]) -> None:
    turns = {1: 0, 3: 2, 6: -1, 8: 1, 9: 0}[orientation]
    page = page_of(tiff_file(GREY, order, {274: orientation, 296: (7, 7)}))
    assert np.array_equal(page, np.rot90(GREY, turns))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pages", [1, 2, 3, 12])
def test_of_several_pages_the_first_is_read_and_said(pages: int, big: bool) -> None:
    page = read_page(tiff_file(GREY, pages=pages, big=big))
    assert np.array_equal(np.asarray(page.image)[..., 0], GREY)
    assert page.pages == pages
    assert page.notes == ((f"Page 1 of {pages} in the file was read.",) if pages > 1 else ())


def test_a_smaller_copy_of_the_page_is_no_second_page() -> None:
    file = bytearray(tiff_file(GREY, tags={254: 0}, pages=2))
    entry = struct.pack("<HHII", 254, 3, 1, 0)
    second = file.rindex(entry)
    file[second : second + 12] = struct.pack("<HHII", 254, 3, 1, 1)
    assert read_page(bytes(file)).pages == 1


def test_thousands_of_pages_and_loops_of_them_cost_no_time() -> None:
    start = time.perf_counter()
    many = read_page(tiff_file(GREY, pages=20_000))
    assert (many.pages, many.notes) == (1000, ("Page 1 of 1,000 or more in the file was read.",))
    loop = bytearray(tiff_file(GREY))
    loop[-4:] = loop[4:8]  # the directory names itself as the next
    assert read_page(bytes(loop)).pages == 1
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("length", range(0, 1200, 97))
def test_a_truncated_tiff_is_refused(length: int) -> None:
    for order in ORDERS:
        with pytest.raises(ImageError):
            read_page(tiff_file(GREY, order)[:length])


def test_exif_is_no_page() -> None:
    with pytest.raises(ImageError, match="0 x 0 pixels"):
        read_page(exif_block(6))
