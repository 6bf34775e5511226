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
from pulse_edge.page.tiff import read_tiff

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


def test_libtiff_says_nothing_on_stderr(tmp_path: Path) -> None:
    """Of pages whose last strip is damaged. What Pillow makes of them is not looked at."""
    paths = []
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4"):
        image = cases.page(300, 200).convert("1" if compression.startswith("group") else "RGB")
        file = bytearray(encoded(image, "TIFF", compression=compression))
        file[len(file) // 2 : len(file) // 2 + 2000] = bytes(2000)
        paths.append(tmp_path / f"{compression}.tif")
        paths[-1].write_bytes(file)
    script = (
        "import sys; from pulse_edge.page.source import read_page\n"
        "for path in sys.argv[1:]:\n"
        "  try: read_page(path)\n"
        "  except Exception as error: print(error)"
    )
    command = [sys.executable, "-c", script, *map(str, paths)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    assert ran.stdout.count("\n") <= len(paths)


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
    start = time.process_time()
    many = read_page(tiff_file(GREY, pages=20_000))
    assert (many.pages, many.notes) == (1000, ("Page 1 of 1,000 or more in the file was read.",))
    loop = bytearray(tiff_file(GREY))
    loop[-4:] = loop[4:8]  # the directory names itself as the next
    assert read_page(bytes(loop)).pages == 1
    assert time.process_time() - start < 2


@pytest.mark.parametrize("length", range(0, 1200, 97))
def test_a_truncated_tiff_is_refused(length: int) -> None:
    for order in ORDERS:
        with pytest.raises(ImageError):
            read_page(tiff_file(GREY, order)[:length])


def test_exif_is_no_page() -> None:
    with pytest.raises(ImageError, match="0 x 0 pixels"):
        read_page(exif_block(6))


# --- tag by tag -----------------------------------------------------------------------------------


def renamed(file: bytes, number: int) -> bytes:
    """The TIFF with another, unknown number in the place of a tag's."""
    entry = struct.pack("<H", number)
    at = next(
        at
        for at in range(len(file) - 12)
        if file[at : at + 2] == entry and file[at + 2 : at + 4] in (b"\3\0", b"\4\0")
    )
    return file[:at] + struct.pack("<H", 65_001) + file[at + 2 :]


@pytest.mark.parametrize("rows", [None, 30, 31, 60_000, 0xFFFFFFFF])
def test_one_strip_holds_all_rows_whatever_its_tag_says(rows: int | None) -> None:
    file = renamed(tiff_file(GREY), 278) if rows is None else tiff_file(GREY, tags={278: rows})
    assert np.array_equal(page_of(file), GREY)


def test_only_one_raw_strip_may_lack_its_size() -> None:
    assert np.array_equal(page_of(renamed(tiff_file(GREY), 279)), GREY)
    two = tiff_file(GREY, tags={273: (8, 608), 278: 15, 279: (600, 600)})
    assert np.array_equal(page_of(two), GREY)
    for file in (renamed(two, 279), renamed(tiff_file(GREY, tags={259: 5}), 279)):
        with pytest.raises(ImageError, match="strips or tiles and 0 sizes of them"):
            read_tiff(file)


@pytest.mark.parametrize(
    ("samples", "bits", "limit"),
    [(1, 1, "36,000,000"), (4, 8, "36,000,000"), (6, 16, "24,000,000"), (5, 12, "32,000,000")],
)
def test_deep_colours_take_more_memory(samples: int, bits: int, limit: str) -> None:
    """libtiff holds the page as stored beside the picture of 4 bytes a pixel."""
    tags: dict[int, Any] = {256: 7000, 257: 6000, 277: samples, 258: (bits,) * samples}
    with pytest.raises(ImageError, match=f"7000 x 6000 pixels, over the {limit} accepted"):
        read_tiff(tiff_file(GREY, tags=tags))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({258: 17}, "a TIFF of 17-bit samples, not 1 to 16 bits and alike"),
        ({258: 0}, "a TIFF of 0-bit samples, not 1 to 16 bits and alike"),
        ({258: 32}, "a TIFF of 32-bit samples, not"),
        ({277: 0}, "a TIFF of 0 samples a pixel, not 1 to 6"),
        ({258: (8, 16)}, "a TIFF of 8-bit and 16-bit samples, not"),
        ({339: (1, 2), 277: 2, 258: (8, 8)}, "a TIFF of 8-bit samples, not 1 to 16 bits"),
        ({339: 2, 258: 12}, "a TIFF of signed colours"),
        ({339: 2, 277: 2, 258: (8, 8)}, "a TIFF of signed colours"),
        ({339: 4}, "a TIFF of 8-bit samples that are of unknown kind"),
        ({339: 5}, "a TIFF of 8-bit samples that are complex"),
        ({339: 0}, "a TIFF of 8-bit samples that are of format 0"),
        ({339: 7}, "a TIFF of 8-bit samples that are of format 7"),
        ({322: 15, 323: 16, 324: 8, 325: 240}, "tiles of 15 x 16 pixels"),
        ({322: 16, 323: 15, 324: 8, 325: 240}, "tiles of 16 x 15 pixels"),
        ({322: 6000, 323: 6016, 324: 8, 325: 9}, "tiles of 6000 x 6016 pixels"),
        ({322: 6000, 323: 6000, 324: 8, 325: 9}, "a strip of the TIFF lies outside"),
        ({278: 1, 256: 400, 257: 65_537}, "a TIFF of 65,537 strips or tiles, over 65,536"),
        ({278: 1, 256: 400, 257: 65_536}, "1 strips or tiles and 1 sizes of them, not 65,536"),
        ({278: 1, 257: 4097, 259: 7}, "a TIFF of 4,097 strips or tiles, over 4,096"),
        ({278: 1, 257: 4096, 259: 7}, "not 4,096"),
        ({278: 1, 257: 4096, 284: 2, 277: 3, 258: (8, 8, 8)}, "not 12,288"),
    ],
)
def test_limits_of_tags(tags: dict[int, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_tiff(tiff_file(GREY, tags=tags))


@pytest.mark.parametrize(("bits", "width", "line"), [(1, 17, 3), (4, 5, 3), (8, 5, 5), (16, 3, 6)])
def test_a_raw_strip_holds_whole_bytes_for_each_row(bits: int, width: int, line: int) -> None:
    strip = np.zeros((1, 3 * line), np.uint8)
    tags: dict[int, Any] = {256: width, 257: 3, 258: bits, 278: 3}
    assert read_tiff(tiff_file(strip, tags=tags)).size == (width, 3)
    with pytest.raises(ImageError, match="lies outside the file"):
        read_tiff(tiff_file(strip, tags=tags | {279: 3 * line - 1}))


def test_planes_are_strips_of_their_own() -> None:
    rgb = np.asarray(SMALL)
    planes = np.concatenate([rgb[..., channel].reshape(1, -1) for channel in range(3)], axis=1)
    tags: dict[int, Any] = {256: 40, 257: 30, 258: (8, 8, 8), 262: 2, 277: 3, 278: 20, 284: 2}
    starts = [8 + 1200 * plane + part for plane in range(3) for part in (0, 800)]
    tags |= {273: tuple(starts), 279: (800, 400) * 3}
    page = read_page(tiff_file(planes, tags=tags))
    assert np.array_equal(np.asarray(page.image), rgb)
    with pytest.raises(ImageError, match="lies outside the file"):
        read_tiff(tiff_file(planes, tags=tags | {279: (800, 400, 800, 399, 800, 400)}))


def test_a_strip_may_end_with_the_file() -> None:
    """With the directory before it, at byte 8."""
    file = tiff_file(np.zeros((1, 1), np.uint8), tags={256: 40, 257: 30, 278: 30, 279: 1200})
    moved = file + bytes(GREY.tobytes())
    at = moved.index(struct.pack("<HHII", 273, 3, 1, 8))
    moved = moved[: at + 2] + struct.pack("<HII", 4, 1, len(file)) + moved[at + 12 :]
    assert np.array_equal(page_of(moved), GREY)
    with pytest.raises(ImageError, match="lies outside the file"):
        read_tiff(moved[:-1])


@pytest.mark.parametrize("offset", [65_535, 65_536, 70_000])
def test_a_strip_may_lie_far_behind(offset: int) -> None:
    pixels = np.zeros((1, offset - 8 + 1200), np.uint8)
    pixels[0, -1200:] = GREY.reshape(-1)
    tags: dict[int, Any] = {256: 40, 257: 30, 273: offset, 278: 30, 279: 1200}
    assert np.array_equal(page_of(tiff_file(pixels, tags=tags)), GREY)


@pytest.mark.parametrize("size", [(32, 16), (31, 15), (40, 16), (32, 24), (16, 24), (33, 1)])
def test_a_jpeg_that_is_larger_than_its_strip_is_refused(size: tuple[int, int]) -> None:
    page = cases.page(*size).convert("L")
    jpeg = np.frombuffer(encoded(page, "JPEG"), np.uint8).reshape(1, -1)
    tags: dict[int, Any] = {256: 32, 257: 16, 259: 7, 278: 16}
    container = read_tiff(tiff_file(jpeg, tags=tags))
    if size[0] > 32 or size[1] > 16:
        with pytest.raises(ImageError, match="a JPEG in the TIFF is larger than its strip"):
            list(container.strips())
    else:
        assert [strip.size for strip in container.strips()] == [size]


XMP = b'<x tiff:Orientation="6"/> '


@pytest.mark.parametrize(
    ("tags", "orientation"),
    [
        ({700: struct.unpack("<13H", XMP)}, 6),
        ({700: struct.unpack("<13H", XMP), 274: 8}, 8),
        ({700: struct.unpack("<13H", XMP), 274: 1}, 1),
        ({700: struct.unpack("<13H", XMP), 274: 9}, 1),
        ({}, 1),
    ],
)
def test_xmp_counts_where_no_tag_names_an_orientation(
    tags: dict[int, Any], orientation: int
) -> None:
    assert read_tiff(tiff_file(GREY, tags=tags)).orientation == orientation


def test_a_number_that_classic_tiff_cannot_hold_is_refused() -> None:
    for file, kind in ((tiff_file(GREY, tags={266: 1}), 9), (tiff_file(GREY, big=True), 17)):
        number = 266 if kind == 9 else 262
        size = "<HHIi" if kind == 9 else "<HHQq"
        at = file.index(struct.pack("<HH", number, 3))
        for value in (-1,) if kind == 9 else (-1, 1 << 32):
            entry = struct.pack(size, number, kind, 1, value)
            changed = file[:at] + entry + file[at + len(entry) :]
            with pytest.raises(ImageError, match=f"tag {number} of the TIFF is out of range|262"):
                read_tiff(changed).picture()


@pytest.mark.parametrize("length", [1199, 1200])
def test_the_picture_alone_is_handed_on(length: int) -> None:
    """The file's bytes, and a directory of the picture's tags at an even place behind them."""
    file = tiff_file(GREY, tags={270: (1,) * 400}) + bytes(length % 2)
    picture = read_tiff(file).picture()
    end = struct.unpack_from("<I", picture, 4)[0]
    assert end == len(file) + len(file) % 2
    tags = 10  # of GREY, less the sample format
    assert struct.unpack_from("<H", picture, end)[0] == tags - 1
    assert len(picture) == end + 2 + 12 * (tags - 1) + 4
    assert picture[8:1208] == GREY.tobytes()


def test_a_loop_or_a_page_beyond_the_file_ends_the_count() -> None:
    file = bytearray(tiff_file(GREY, pages=3))
    assert read_tiff(bytes(file)).pages == 3
    places = [struct.unpack_from("<I", file, 4)[0]]
    for _ in range(2):
        count = struct.unpack_from("<H", file, places[-1])[0]
        places.append(struct.unpack_from("<I", file, places[-1] + 2 + 12 * count)[0])
    end = places[1] + 2 + 12 * struct.unpack_from("<H", file, places[1])[0]
    for following, pages in ((places[0], 2), (places[1], 2), (len(file) + 50, 2), (0, 2)):
        struct.pack_into("<I", file, end, following)
        assert read_tiff(bytes(file)).pages == pages


@pytest.mark.parametrize(("kind", "pages"), [(0, 2), (1, 1), (2, 2), (4, 1), (5, 1), (6, 1)])
def test_smaller_copies_and_masks_are_no_pages(kind: int, pages: int) -> None:
    file = bytearray(tiff_file(GREY, tags={254: 0}, pages=2))
    second = file.rindex(struct.pack("<HHII", 254, 3, 1, 0))
    file[second : second + 12] = struct.pack("<HHII", 254, 3, 1, kind)
    assert read_tiff(bytes(file)).pages == pages


def test_a_directory_that_ends_with_the_file_is_said() -> None:
    file = bytearray(tiff_file(GREY))
    place = struct.unpack_from("<I", file, 4)[0]
    struct.pack_into("<H", file, place, 900)
    with pytest.raises(ImageError, match="the directory of the TIFF ends beyond it"):
        read_tiff(bytes(file))


def test_a_raw_strip_holds_all_samples_of_a_pixel() -> None:
    rgb = np.asarray(SMALL)
    assert read_tiff(tiff_file(rgb, tags={279: 3600})).size == (40, 30)
    with pytest.raises(ImageError, match="lies outside the file"):
        read_tiff(tiff_file(rgb, tags={279: 3599}))


def tags_of(file: bytes) -> set[int]:
    """Numbers in the first directory of a classic TIFF."""
    place = struct.unpack_from("<I", file, 4)[0]
    count = struct.unpack_from("<H", file, place)[0]
    return {struct.unpack_from("<H", file, place + 2 + 12 * n)[0] for n in range(count)}


def test_the_tags_that_make_the_picture_are_handed_on() -> None:
    """TIFF 6.0 and its supplements; of strips and tiles those that the page has."""
    always = {256, 257, 258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 338, 347, 529, 530, 532}
    strips, tiles = {273, 278, 279}, {322, 323, 324, 325}
    values: dict[int, Any] = dict.fromkeys(always, 1) | {256: 40, 257: 30, 258: 8}
    others: dict[int, Any] = dict.fromkeys((254, 270, 274, 282, 305, 330, 700, 34_665), 1)
    file = tiff_file(GREY, tags=values | others)
    assert tags_of(read_tiff(file).picture()) == always | strips
    values |= {322: 48, 323: 32, 324: 8, 325: 1536}
    padded = np.zeros((32, 48), np.uint8)
    file = tiff_file(padded, tags=values | others)
    assert tags_of(read_tiff(file).picture()) == always | tiles


def test_a_compressed_strip_has_at_least_a_byte() -> None:
    tags: dict[int, Any] = {256: 40, 257: 30, 259: 32_773, 278: 30}
    assert read_tiff(tiff_file(np.zeros((1, 1), np.uint8), tags=tags)).size == (40, 30)
    with pytest.raises(ImageError, match="lies outside the file"):
        read_tiff(tiff_file(np.zeros((1, 1), np.uint8), tags=tags | {279: 0}))
