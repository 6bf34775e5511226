"""PNG: every checksum, every row, any metadata, transparency and depth of every colour type."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from pulse_edge.errors import ImageError
from pulse_edge.page.png import read_png
from pulse_edge.page.source import read_page

from goldens import cases
from support.image_files import (
    PNG_SIGNATURE,
    chunk,
    encoded,
    exif_block,
    png_file,
    unfiltered,
    with_chunk,
)

SMALL = cases.page(40, 30)
PNG = encoded(SMALL, "PNG")
DEEP = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 54


# --- integrity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(encoded(cases.page(8, 6), "PNG"), id="RGB"),
        pytest.param(encoded(cases.page(8, 6).quantize(4), "PNG", transparency=1), id="palette"),
        pytest.param(with_chunk(encoded(SMALL.resize((5, 4)), "PNG"), b"tEXt", b"a\0b"), id="text"),
        pytest.param(
            png_file((4, 4), 16, 0, unfiltered(DEEP[:4, :4]), chunk(b"tRNS", b"\0\x36")),
            id="16-bit",
        ),
    ],
)
def test_no_flipped_bit_alters_a_page_in_silence(file: bytes) -> None:
    """Every bit of the file, one at a time."""
    whole = read_page(file).sha256
    read = 0
    for bit in range(len(file) * 8):
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert read_page(bytes(damaged)).sha256 == whole, bit
            read += 1
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert read == 0


def test_a_flipped_bit_in_a_page_of_several_chunks_is_refused() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    file = encoded(Image.fromarray(noise), "PNG")
    assert file.count(b"IDAT") > 2
    for bit in np.random.default_rng(2).integers(0, len(file) * 8, 100):
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ImageError):
            read_page(bytes(damaged))


ROW = b"\0" + bytes(range(40))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 15, 29])
def test_missing_rows_are_refused(rows: int, interlaced: bool) -> None:
    with pytest.raises(ImageError, match=r"truncated: the PNG holds .* of its picture"):
        read_page(png_file((40, 30), 8, 0, ROW * rows, interlaced=interlaced))


@pytest.mark.parametrize("surplus", [b"\0", ROW, ROW * 30, bytes(50_000_000)])
def test_surplus_rows_are_refused_without_inflating_them_all(surplus: bytes) -> None:
    with pytest.raises(ImageError, match="more rows than its header says"):
        read_page(png_file((40, 30), 8, 0, ROW * 30 + surplus))


def test_the_checksum_of_the_deflated_data_is_checked() -> None:
    data = bytearray(zlib.compress(ROW * 30))
    data[-1] ^= 1
    header = struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0)
    file = PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(data))
    with pytest.raises(ImageError, match="cannot be inflated"):
        read_page(file + chunk(b"IEND", b""))


def test_rows_may_be_split_over_chunks_anywhere() -> None:
    data = zlib.compress(unfiltered(np.asarray(SMALL)))
    header = struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)
    parts = [chunk(b"IDAT", data[at : at + 7]) + chunk(b"IDAT", b"") for at in range(0, 9999, 7)]
    file = PNG_SIGNATURE + chunk(b"IHDR", header) + b"".join(parts) + chunk(b"IEND", b"")
    assert read_page(file).sha256 == read_page(SMALL).sha256


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (PNG[:-12], "truncated"),
        (PNG[:-1], "truncated"),
        (PNG.replace(b"IDAT", b"IDAX"), "checksum of PNG chunk IDAX"),
        (PNG_SIGNATURE + chunk(b"IEND", b""), "no picture"),
        (PNG_SIGNATURE + chunk(b"IDAT", b"") + PNG[8:], "one IHDR"),
        (with_chunk(PNG, b"IHDR", PNG[16:29]), "one IHDR"),
        (with_chunk(PNG, b"CRIT", b""), "CRIT is not in the standard"),
        (png_file((4, 4), 8, 3, bytes(20)), "no palette"),
        (png_file((4, 4), 3, 0, bytes(20)), "3 bits.*not in the standard"),
        (png_file((4, 4), 8, 5, bytes(20)), "colour type 5.*not in the standard"),
    ],
)
def test_what_is_no_png_is_refused_by_name(file: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_page(file)


def test_bytes_behind_the_end_chunk_do_not_matter() -> None:
    assert read_page(PNG + b"more").sha256 == read_page(PNG).sha256


def test_a_page_is_checked_though_the_program_lets_pillow_read_truncated_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for file in (PNG[:-20], png_file((40, 30), 8, 0, ROW * 29)):
        with pytest.raises(ImageError, match="truncated"):
            read_page(file)


# --- metadata -------------------------------------------------------------------------------------

LONG = bytes(range(256)) * 8192  # 2 MB, over Pillow's limit for a chunk
DEFLATED = zlib.compress(bytes(70_000_000), 9)  # over its limit for all of them


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
        (b"iCCP", b"profile\0\0" + DEFLATED),
        (b"iCCP", b"profile\0\1none"),
        (b"iCCP", b"no terminator"),
        (b"zTXt", b"key\0\0" + zlib.compress(LONG)),
        (b"zTXt", b"key\0\0" + DEFLATED),
        (b"zTXt", b"key\0\7"),
        (b"tEXt", b"key\0" + LONG),
        (b"iTXt", b"key\0\1\0\0\0" + zlib.compress(LONG)),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + DEFLATED),
        (b"iTXt", b"key\0\1\0\0\0no zlib"),
        (b"eXIf", b"garbage"),
        (b"eXIf", b""),
        (b"pHYs", b""),
        (b"gAMA", b"\0"),
        (b"cHRM", b"\0" * 5),
        (b"sRGB", b""),
        (b"acTL", b"\0"),
        (b"acTL", bytes(8)),
        (b"tIME", b"\xff" * 7),
        (b"prVt", LONG),
    ],
)
def test_a_sound_page_is_read_whatever_its_metadata(kind: bytes, body: bytes) -> None:
    page = read_page(with_chunk(PNG, kind, body))
    assert page.sha256 == read_page(SMALL).sha256
    assert (page.orientation, page.pages) == (1, 1)


def test_texts_over_pillows_limit_for_all_of_them_are_no_matter() -> None:
    text = zlib.compress(bytes(1_000_000))
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % n + text) for n in range(80))
    limit = PngImagePlugin.MAX_TEXT_MEMORY
    assert read_page(PNG[:33] + texts + PNG[33:]).sha256 == read_page(SMALL).sha256
    assert limit == PngImagePlugin.MAX_TEXT_MEMORY


def test_reading_in_threads_leaves_pillow_and_the_warning_filters_alone() -> None:
    file = with_chunk(PNG, b"iCCP", b"profile\0\0" + zlib.compress(LONG))
    filters = list(warnings.filters)
    limits = (PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS)
    hashes: set[str] = set()
    seen: list[bool] = []

    def read() -> None:
        for _ in range(5):
            hashes.add(read_page(file).sha256)
            seen.append(warnings.filters == filters)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hashes == {read_page(SMALL).sha256}
    assert all(seen)
    assert len(seen) == 40
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, Image.MAX_IMAGE_PIXELS)


XMP = b'<rdf:Description tiff:Orientation="6"/>'
RAW = b"\nexif\n%8d\n" % len(exif_block(6)) + exif_block(6).hex().encode() + b"\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"eXIf", exif_block(6)),
        (b"eXIf", exif_block(6, ">")),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0key\0" + zlib.compress(XMP)),
        (b"tEXt", b"Raw profile type exif\0" + RAW),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW)),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_an_orientation_is_found_wherever_programs_write_it(
    kind: bytes, body: bytes, place: str
) -> None:
    extra = chunk(kind, body)
    file = PNG[:33] + extra + PNG[33:] if place == "before" else PNG[:-12] + extra + PNG[-12:]
    page = read_page(file)
    assert page.orientation == 6
    assert np.array_equal(np.asarray(page.image), np.rot90(np.asarray(SMALL), -1))


# --- depth and transparency -----------------------------------------------------------------------


@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_grey_is_its_high_byte(interlaced: bool) -> None:
    rows = unfiltered(DEEP)
    if interlaced:
        rows = b"".join(
            unfiltered(DEEP[top::down, left::across])
            for left, top, across, down in (
                (0, 0, 8, 8),
                (4, 0, 8, 8),
                (0, 4, 4, 8),
                (2, 0, 4, 4),
                (0, 2, 2, 4),
                (1, 0, 2, 2),
                (0, 1, 1, 2),
            )
        )
    page = np.asarray(read_page(png_file((40, 30), 16, 0, rows, interlaced=interlaced)).image)
    assert np.array_equal(page, np.repeat((DEEP >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colours_are_their_high_bytes(colour: int, samples: int) -> None:
    values = np.repeat(DEEP[..., None], samples, axis=2)
    values[..., -1 if colour != 2 else 0] = 0xFFFF  # opaque
    page = np.asarray(read_page(png_file((40, 30), 16, colour, unfiltered(values))).image)
    assert np.array_equal(page[..., 1], DEEP >> 8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_becomes_white(bits: int) -> None:
    """At every depth the key is a sample as stored, and the page's greys are scaled to 8 bits."""
    value = 1
    samples = np.zeros((4, 8), np.uint16)
    samples[1] = value
    if bits == 16:
        rows = unfiltered(samples)
    else:
        packed = np.zeros((4, bits), np.uint8)
        packed[1] = {1: 0xFF, 2: 0x55, 4: 0x11, 8: 1}[bits]
        rows = unfiltered(packed)
    file = png_file((8, 4), bits, 0, rows, chunk(b"tRNS", struct.pack(">H", value)))
    page = read_page(file)
    rgb = np.asarray(page.image)
    assert page.alpha == "white"
    assert (rgb[1] == 255).all()
    assert not rgb[[0, 2, 3]].any()


def test_the_transparent_colour_becomes_white() -> None:
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[2] = (10, 20, 30)
    file = png_file((4, 4), 8, 2, unfiltered(rgb), chunk(b"tRNS", struct.pack(">HHH", 10, 20, 30)))
    page = read_page(file)
    assert page.alpha == "white"
    assert (np.asarray(page.image)[2] == 255).all()
    assert not np.asarray(page.image)[[0, 1, 3]].any()
    dropped = read_page(file, alpha="drop")
    assert dropped.alpha == "dropped"
    assert np.array_equal(np.asarray(dropped.image), rgb)


def test_a_transparent_colour_that_no_pixel_has_changes_nothing() -> None:
    grey = unfiltered(np.full((4, 4), 7, np.uint8))
    page = read_page(png_file((4, 4), 8, 0, grey, chunk(b"tRNS", b"\0\x09")))
    assert (page.alpha, np.asarray(page.image).max()) == ("none", 7)


def test_a_transparent_16_bit_colour_is_refused_by_name() -> None:
    colour = np.zeros((4, 4, 3), np.uint16)
    file = png_file((4, 4), 16, 2, unfiltered(colour), chunk(b"tRNS", bytes(6)))
    with pytest.raises(ImageError, match=r"16-bit PNG with a transparent colour; save it"):
        read_page(file)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alphas", [b"\0", b"\xff\0", b"\x80\x80\x80\x80", bytes(4), b"\0\xff\x40"])
def test_a_palette_is_composited_by_its_alphas(alphas: bytes) -> None:
    palette = bytes((0, 0, 0, 200, 0, 0, 0, 100, 0, 0, 0, 50))
    index = np.arange(16, dtype=np.uint8).reshape(4, 4) % 4
    file = png_file(
        (4, 4), 8, 3, unfiltered(index), chunk(b"PLTE", palette) + chunk(b"tRNS", alphas)
    )
    alpha = np.frombuffer(alphas.ljust(4, b"\xff"), np.uint8)[index][..., None].astype(int)
    colour = np.frombuffer(palette, np.uint8).reshape(4, 3)[index].astype(int)
    expected = (colour * alpha + 255 * (255 - alpha)) / 255
    page = read_page(file)
    assert page.alpha == "white"
    assert np.abs(np.asarray(page.image) - expected).max() <= 1
    assert np.array_equal(np.asarray(read_page(file, alpha="drop").image), colour)


# --- several frames -------------------------------------------------------------------------------


@pytest.mark.parametrize("default_image", [False, True])
def test_of_an_animation_the_still_picture_is_read_and_said(
    default_image: bool, tmp_path: Path
) -> None:
    frames = [cases.page(40, 30, seed) for seed in range(1, 4)]
    file = encoded(SMALL, "PNG", save_all=True, append_images=frames, default_image=default_image)
    page = read_page(file)
    assert page.sha256 == read_page(SMALL).sha256
    assert page.pages == 4
    assert page.notes == ("Page 1 of 4 in the file was read.",)


# --- chunk by chunk -------------------------------------------------------------------------------


def header(*fields: int) -> bytes:
    """A PNG of this header, with a picture of 4 x 4 grey pixels."""
    body = struct.pack(">IIBBBBB", *fields)
    picture = chunk(b"IDAT", zlib.compress(bytes(20)))
    return PNG_SIGNATURE + chunk(b"IHDR", body) + picture + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (header(4, 4, 8, 0, 1, 0, 0), "compression 1, filter 0 and interlace 0"),
        (header(4, 4, 8, 0, 0, 1, 0), "compression 0, filter 1 and interlace 0"),
        (header(4, 4, 8, 0, 0, 0, 2), "compression 0, filter 0 and interlace 2"),
        (header(4, 4, 16, 3, 0, 0, 0), "colour type 3 with 16 bits"),
        (header(4, 4, 4, 2, 0, 0, 0), "colour type 2 with 4 bits"),
        (header(4, 4, 4, 4, 0, 0, 0), "colour type 4 with 4 bits"),
        (header(4, 4, 4, 6, 0, 0, 0), "colour type 6 with 4 bits"),
        (header(4, 4, 8, 7, 0, 0, 0), "colour type 7 with 8 bits"),
        (header(7000, 6000, 8, 0, 0, 0, 0), "7000 x 6000 pixels, over the 36,000,000 accepted"),
        (PNG_SIGNATURE + chunk(b"IHDR", PNG[16:28]), "PNG chunk IHDR has 12 bytes, not 13"),
        (PNG_SIGNATURE + chunk(b"IHDR", PNG[16:30]), "PNG chunk IHDR has 14 bytes, not 13"),
        (with_chunk(PNG, b"CrIT", b""), "PNG chunk CrIT is not in the standard"),
        (with_chunk(PNG, b"C\xe4iT", b""), "PNG chunk C\ufffdiT is not in the standard"),
        (PNG.replace(b"IDAT", b"ID\xe4T"), r"checksum of PNG chunk b'ID\\xe4T' is wrong"),
    ],
)
def test_headers_and_chunks_that_are_not_in_the_standard(file: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_png(file)


def test_a_picture_that_is_not_deflated_to_its_end_is_refused_with_its_share() -> None:
    """Whole rows are there; the end of the data and its checksum are not."""
    data = zlib.compress(ROW * 30)
    for length in (len(data) - 1, len(data) - 4, len(data) // 2):
        head = struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0)
        file = PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", data[:length])
        with pytest.raises(ImageError, match=r"the PNG holds [\d,]+ of 1,230 bytes of its picture"):
            read_png(file + chunk(b"IEND", b""))
    with pytest.raises(ImageError, match="the PNG holds 1,189 of 1,230 bytes"):
        read_png(png_file((40, 30), 8, 0, ROW * 29))


@pytest.mark.parametrize("split", [0, 1, 3, 4, 5, 8])
def test_pictures_around_the_size_that_is_inflated_at_a_time(split: int) -> None:
    """A picture that deflates well ends with its last bytes: here in a chunk of their own."""
    for width in (1023, 1024, 1279):
        data = zlib.compress(bytes((1 + width) * 256), 9)
        head = struct.pack(">IIBBBBB", width, 256, 8, 0, 0, 0, 0)
        at = len(data) - split
        parts = chunk(b"IDAT", data[:at]) + chunk(b"IDAT", data[at:])
        file = PNG_SIGNATURE + chunk(b"IHDR", head) + parts + chunk(b"IEND", b"")
        assert read_png(file).size == (width, 256)


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))


@pytest.mark.parametrize("width", range(1, 10))
def test_interlaced_pictures_of_every_small_size(width: int) -> None:
    """Narrow and low pictures lack some of the seven passes."""
    for height in range(1, 10):
        grey = DEEP[:height, :width].astype(np.uint8)
        parts = [grey[top::down, left::across] for left, top, across, down in PASSES]
        parts.append(grey[1::2])
        rows = b"".join(unfiltered(part) for part in parts if part.size)
        page = read_page(png_file((width, height), 8, 0, rows, interlaced=True))
        assert np.array_equal(np.asarray(page.image)[..., 0], grey)


@pytest.mark.parametrize(
    ("chunks", "orientation"),
    [
        ([(b"tEXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)], 1),
        ([(b"iTXt", b"XML:com.adobe.xmp2\0\0\0\0\0" + XMP)], 1),
        ([(b"iTXt", b"Raw profile type exif\0" + RAW)], 1),
        ([(b"tEXt", b"Raw profile type exif2\0" + RAW)], 1),
        (
            [
                (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.replace(b"6", b"%d" % n))
                for n in (8, 3)
            ],
            8,
        ),
        ([(b"eXIf", exif_block(n)) for n in (8, 3)], 8),
        ([(b"eXIf", exif_block(8)), (b"tEXt", b"Raw profile type exif\0" + RAW)], 8),
        ([(b"tEXt", b"Raw profile type exif\0" + RAW), (b"eXIf", exif_block(8))], 6),
        ([(b"tEXt", b"Raw profile type exif\0" + RAW[:-2])], 1),
        ([(b"tEXt", b"Raw profile type exif\0" + RAW.replace(b"00", b"0g"))], 1),
    ],
)
def test_the_first_block_of_each_kind_counts(
    chunks: list[tuple[bytes, bytes]], orientation: int
) -> None:
    extra = b"".join(chunk(*each) for each in chunks)
    assert read_png(PNG[:33] + extra + PNG[33:]).orientation == orientation


@pytest.mark.parametrize(
    ("bits", "stored", "key"),
    [
        (1, 1, 255),
        (2, 2, 170),
        (4, 3, 51),
        (8, 200, 200),
        (16, 0x1234, 0x1234),
        (8, 0x1207, 7),  # the upper bits do not count
        (1, 2, 0),
    ],
)
def test_the_transparent_grey_at_the_scale_of_8_bits(bits: int, stored: int, key: int) -> None:
    rows = bytes(4 * (1 + max(1, 4 * bits // 8)))
    key_chunk = chunk(b"tRNS", struct.pack(">H", stored))
    assert read_png(png_file((4, 4), bits, 0, rows, key_chunk)).transparent == key


@pytest.mark.parametrize(
    ("colour", "body", "key"),
    [
        (0, b"\7", None),
        (0, b"", None),
        (0, b"\0\7\0", 7),
        (2, b"\0\1\0\2\0", None),
        (2, b"\0\1\0\2\0\3", (1, 2, 3)),
        (2, b"\x09\1\x09\2\x09\3more", (1, 2, 3)),
        (4, b"\0\7\0\7\0\7", None),
        (6, b"\0\7\0\7\0\7", None),
    ],
)
def test_a_transparent_colour_needs_all_its_bytes(
    colour: int, body: bytes, key: int | tuple[int, int, int] | None
) -> None:
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    file = png_file((4, 4), 8, colour, bytes(4 * (1 + 4 * samples)), chunk(b"tRNS", body))
    assert read_png(file).transparent == key


def test_the_picture_alone_is_handed_on() -> None:
    """Header, palette and its alphas, data and end, without what else the file holds."""
    index = unfiltered(np.zeros((4, 4), np.uint8))
    palette, alphas = chunk(b"PLTE", bytes(range(12))), chunk(b"tRNS", b"\x80")
    extra = chunk(b"tEXt", b"a\0b") + chunk(b"eXIf", exif_block(6))
    file = png_file((4, 4), 8, 3, index, extra + palette + alphas, extra)
    assert read_png(file).picture() == png_file((4, 4), 8, 3, index, palette + alphas)
    opaque = png_file((4, 4), 8, 3, index, palette)
    assert read_png(opaque).picture() == opaque
    interlaced = png_file((1, 1), 8, 0, bytes(2), interlaced=True)
    assert read_png(interlaced).picture() == interlaced
    grey = png_file((4, 4), 8, 0, index, palette + chunk(b"tRNS", b"\0\7"))
    assert read_png(grey).picture() == png_file((4, 4), 8, 0, index)


@pytest.mark.parametrize(
    ("chunks", "pages"),
    [
        ("fD", 1),
        ("fDff", 3),
        ("Dff", 3),
        ("ffD", 3),  # the still picture comes after two frames: it is none of them
        ("DD", 1),
        ("fDD", 1),
        ("fDfD", 2),
    ],
)
def test_frames_are_counted(chunks: str, pages: int) -> None:
    """f: a frame; D: data of the still picture, which is the first frame if it follows it."""
    data = zlib.compress(bytes(20))
    half = iter([data[:9], data[9:]]) if chunks.count("D") == 2 else iter([data])
    parts = [chunk(b"fcTL", b"") if kind == "f" else chunk(b"IDAT", next(half)) for kind in chunks]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    file = PNG_SIGNATURE + head + b"".join(parts) + chunk(b"IEND", b"")
    assert read_png(file).pages == pages


def test_a_png_of_too_many_chunks_is_refused() -> None:
    small = chunk(b"tEXt", b"")
    at = len(PNG_SIGNATURE) + 25
    tail = png_file((4, 4), 8, 0, bytes(20))
    assert read_png(tail[:at] + small * 99_998 + tail[at:]).size == (4, 4)
    with pytest.raises(ImageError, match="more than the 100,000 chunks of a PNG accepted"):
        read_png(tail[:at] + small * 100_000 + tail[at:])


@pytest.mark.parametrize(
    ("colour", "samples", "depths"),
    [
        (0, 1, (1, 2, 4, 8, 16)),
        (2, 3, (8, 16)),
        (3, 1, (1, 2, 4, 8)),
        (4, 2, (8, 16)),
        (6, 4, (8, 16)),
    ],
)
def test_every_depth_of_every_colour_type(
    colour: int, samples: int, depths: tuple[int, ...]
) -> None:
    for bits in range(1, 33):
        row = bytes(1 + (5 * samples * bits + 7) // 8)
        file = png_file((5, 3), bits, colour, 3 * row, chunk(b"PLTE", bytes(6)))
        if bits in depths:
            assert read_page(file).size == (5, 3)
        else:
            with pytest.raises(ImageError, match="is not in the standard; save it again as PNG"):
                read_png(file)


def test_the_byte_at_which_a_png_ends_is_named() -> None:
    for length in (9, 20, 40, len(PNG) - 13, len(PNG) - 1):
        with pytest.raises(ImageError, match=f"the PNG ends at byte {length}$"):
            read_png(PNG[:length])


def test_what_is_wrong_with_the_data_is_said() -> None:
    data = bytearray(zlib.compress(ROW * 30))
    data[-1] ^= 1
    head = struct.pack(">IIBBBBB", 40, 30, 8, 0, 0, 0, 0)
    file = PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(data))
    with pytest.raises(ImageError, match=r"cannot be inflated \(incorrect data check\)$"):
        read_png(file + chunk(b"IEND", b""))


def test_a_damaged_first_block_is_not_replaced_by_a_second() -> None:
    damaged = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0no zlib")
    sound = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    assert read_png(PNG[:33] + damaged + sound + PNG[33:]).orientation == 1
    assert read_png(PNG[:33] + sound + damaged + PNG[33:]).orientation == 6
