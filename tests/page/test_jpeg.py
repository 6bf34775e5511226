"""JPEG: half files, scans, restarts, odd metadata and several pictures in a file."""

from __future__ import annotations

import io
import re
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page.limits import MAX_SCANS
from pulse_edge.page.picture import read_container
from pulse_edge.page.source import read_page

from goldens import cases
from support.image_files import cut_jpeg, encoded, exif_block, jpeg_segment

PAGE = cases.page(200, 150)
JPEG = encoded(PAGE, "JPEG")
ENCODINGS: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_blocks": 3},
    "restart rows": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
    "progressive restarts": {"progressive": True, "restart_marker_rows": 1},
}
MODES = ("RGB", "L", "CMYK")


def pillow_pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


# --- half files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_a_cut_jpeg_with_an_end_marker_is_refused(options: dict[str, Any], mode: str) -> None:
    file = encoded(PAGE.convert(mode), "JPEG", **options)
    for share in (0.05, 0.3, 0.5, 0.61, 0.8, 0.95, 0.99):
        with pytest.raises(ImageError, match=r"truncated|restart markers|scan"):
            read_page(cut_jpeg(file, share))


@pytest.mark.parametrize("colour", ["white", "black", (128, 128, 128), (40, 128, 3)])
@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_a_sound_page_with_a_uniform_ground_is_read(
    options: dict[str, Any], colour: str | tuple[int, int, int]
) -> None:
    """Missing rows are grey 128; so may a sound page be, in part or as a whole."""
    blank = Image.new("RGB", (150, 100), colour)
    half = blank.copy()
    half.paste(PAGE.crop((0, 0, 150, 50)))
    for page in (blank, half):
        file = encoded(page, "JPEG", **options)
        assert np.array_equal(np.asarray(read_page(file).image), pillow_pixels(file))


@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_half_a_uniform_page_is_refused(options: dict[str, Any]) -> None:
    """Optimized codes of a grey page know nothing but grey: there the picture must be the same."""
    for colour in ("white", (128, 128, 128), (10, 0, 0)):
        file = encoded(Image.new("RGB", (300, 200), colour), "JPEG", **options)
        for share in (0.3, 0.6, 0.9):
            try:
                page = read_page(cut_jpeg(file, share))
            except ImageError:
                continue
            assert "optimize" in options
            assert np.array_equal(np.asarray(page.image), pillow_pixels(file))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (16, 16), (17, 33), (64, 3)])
@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_sound_pages_of_any_size_are_read(size: tuple[int, int], options: dict[str, Any]) -> None:
    for mode in MODES:
        file = encoded(cases.page(*size).convert(mode), "JPEG", **options)
        assert np.array_equal(np.asarray(read_page(file).image), pillow_pixels(file))


def test_every_cut_is_refused() -> None:
    """At every byte of the picture. The last byte may hold nothing but padding."""
    file = encoded(cases.page(48, 32), "JPEG", optimize=True)
    start = file.index(b"\xff\xda") + 14
    refused = 0
    for end in range(start, len(file) - 2):
        try:
            page = read_page(file[:end].rstrip(b"\xff") + b"\xff\xd9")
            assert np.array_equal(np.asarray(page.image), pillow_pixels(file)), end
        except ImageError:
            refused += 1
    assert refused >= len(file) - 2 - start - 1


@pytest.mark.parametrize("options", ENCODINGS.values(), ids=ENCODINGS)
def test_a_jpeg_without_its_end_marker_is_refused(options: dict[str, Any]) -> None:
    file = encoded(PAGE, "JPEG", **options)
    for end in (-1, -2, -50, len(file) // 2):
        with pytest.raises(ImageError, match="truncated"):
            read_page(file[:end])


def scans_of(file: bytes) -> tuple[bytes, list[bytes], bytes]:
    """(before the first scan, scans with their tables, end marker) of a progressive JPEG."""
    places = [at for at in range(len(file)) if file[at : at + 2] == b"\xff\xda"]
    starts: list[int] = []
    for place in places:  # Pillow writes a scan's Huffman table directly before it
        table = file.rfind(b"\xff\xc4", starts[-1] if starts else 0, place)
        starts.append(table if table > 0 else place)
    parts = [file[a:b] for a, b in zip(starts, [*starts[1:], len(file) - 2], strict=True)]
    return file[: starts[0]], parts, file[-2:]


def test_a_progressive_jpeg_that_lacks_whole_scans_is_refused() -> None:
    head, scans, end = scans_of(encoded(PAGE, "JPEG", progressive=True, subsampling=0))
    assert len(scans) == 10
    for count in range(1, 10):
        with pytest.raises(ImageError, match="lacks scans"):
            read_page(head + b"".join(scans[:count]) + end)
    assert read_page(head + b"".join(scans) + end).size == (200, 150)


def test_a_jpeg_that_lacks_restart_intervals_in_its_middle_is_refused() -> None:
    file = encoded(PAGE, "JPEG", restart_marker_blocks=3)
    marks = [at for at in range(len(file) - 1) if file[at] == 0xFF and 0xD0 <= file[at + 1] < 0xD8]
    with pytest.raises(ImageError, match="restart markers"):
        read_page(file[: marks[5]] + file[marks[6] :])


@pytest.mark.parametrize("trailer", [b"\0" * 100, b"garbage", JPEG[:50], b"\xff" * 9])
def test_bytes_behind_the_end_marker_do_not_matter(trailer: bytes) -> None:
    assert read_page(JPEG + trailer).sha256 == read_page(JPEG).sha256


# --- scans and kinds ------------------------------------------------------------------------------


def with_scans(file: bytes, copies: int) -> bytes:
    """A progressive JPEG whose first scan is repeated, which leads to the same picture."""
    head, scans, end = scans_of(file)
    return head + scans[0] * copies + b"".join(scans) + end


PROGRESSIVE = encoded(cases.page(64, 48), "JPEG", progressive=True)


@pytest.mark.parametrize("copies", [MAX_SCANS, 200, 5000])
def test_a_jpeg_of_many_scans_is_refused_with_the_number_accepted(copies: int) -> None:
    start = time.process_time()
    with pytest.raises(ImageError, match=f"more than the {MAX_SCANS} scans accepted; save it"):
        read_page(with_scans(PROGRESSIVE, copies))
    assert time.process_time() - start < 1


def test_as_many_scans_as_accepted_are_read() -> None:
    count = len(scans_of(PROGRESSIVE)[1])
    page = read_page(with_scans(PROGRESSIVE, MAX_SCANS - count))
    assert page.sha256 == read_page(PROGRESSIVE).sha256


def patched_frame(file: bytes, **fields: int) -> bytes:
    """A JPEG with other values in its frame header."""
    at = file.index(b"\xff\xc0")
    damaged = bytearray(file)
    if "marker" in fields:
        damaged[at + 1] = fields["marker"]
    if "bits" in fields:
        damaged[at + 4] = fields["bits"]
    if "height" in fields:
        struct.pack_into(">H", damaged, at + 5, fields["height"])
    if "width" in fields:
        struct.pack_into(">H", damaged, at + 7, fields["width"])
    if "sampling" in fields:
        damaged[at + 11] = fields["sampling"]
    return bytes(damaged)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 12}, "12 bits a sample"),
        ({"marker": 0xC9}, "arithmetic coding"),
        ({"marker": 0xC3}, "lossless"),
        ({"marker": 0xC5}, "frame type 5"),
        ({"height": 0}, "200 x 0 pixels"),
        ({"width": 0}, "0 x 150 pixels"),
        ({"width": 65000, "height": 65000}, "over the 36,000,000 accepted; scale it down"),
        ({"width": 20000, "height": 10}, "more elongated than the 1,000 to 1"),
        ({"height": 4000}, "truncated"),
        ({"sampling": 0}, "samples a component impossibly"),
    ],
)
def test_kinds_of_jpeg_that_are_not_read(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_page(patched_frame(JPEG, **fields))


def test_a_cmyk_jpeg_says_whether_its_inks_are_inverted() -> None:
    """Adobe's programs write them inverted and mark the file. Without the mark nobody can tell."""
    file = encoded(PAGE.convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(np.asarray(read_page(file).image), pillow_pixels(file))
    at = file.index(b"\xff\xee")
    length = int.from_bytes(file[at + 2 : at + 4], "big")
    with pytest.raises(ImageError, match=r"CMYK JPEG .*save it RGB"):
        read_page(file[:at] + file[at + 2 + length :])


def test_an_rgb_jpeg_stays_rgb() -> None:
    """Adobe's mark with transform 0: the components are not YCbCr."""
    file = encoded(PAGE, "JPEG", keep_rgb=True, quality=95)
    difference = np.asarray(read_page(file).image).astype(int) - np.asarray(PAGE)
    assert np.abs(difference).max() < 30
    assert np.array_equal(np.asarray(read_page(file).image), pillow_pixels(file))


# --- metadata and several pictures ----------------------------------------------------------------

# A multi-picture index that lists three.
INDEX = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIII", 1, 0xB001, 4, 1, 3, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE1, b"Exif\0\0garbage"),
        (0xE1, b"Exif\0\0"),
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        (0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
        (0xE1, b"Exif\0\0" + exif_block(0)),
        (0xE1, b"Exif\0\0" + exif_block(9)),
        (0xE1, b"Exif\0\0" + b"\xff" * 60_000),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='none'/>"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\7\1"),
        (0xE2, b"MPF\0"),
        (0xE2, b"MPF\0II*\0\x08\0\0\0"),
        (0xE2, b"FPXR\0"),
        (0xED, b"Photoshop 3.0\x008BIM"),
        (0xE0, b"JFXX\0\x10" + JPEG[:400]),
        (0xEE, b"Adob"),
        (0xEF, bytes(65_533)),
        (0xFE, b"\xff" * 1000),
    ],
)
def test_a_sound_jpeg_is_read_whatever_its_metadata(marker: int, body: bytes) -> None:
    page = read_page(JPEG[:2] + jpeg_segment(marker, body) + JPEG[2:])
    assert page.sha256 == read_page(JPEG).sha256
    assert (page.orientation, page.pages) == (1, 1)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(JPEG[:2] + b"\xff\xff\xff" + JPEG[2:], id="fill bytes"),
        pytest.param(JPEG[:-2] + b"\xff\xff" + JPEG[-2:], id="fill bytes at the end"),
        pytest.param(JPEG[:2] + jpeg_segment(0xFE, b"") * 5000 + JPEG[2:], id="5000 comments"),
        pytest.param(JPEG[:-2] + jpeg_segment(0xFE, b"late") + JPEG[-2:], id="late comment"),
        pytest.param(JPEG[:2] + jpeg_segment(0xFE, b"\xff") + JPEG[2:], id="0xFF before a marker"),
    ],
)
def test_odd_but_legal_structure_is_read(file: bytes) -> None:
    assert read_page(file).sha256 == read_page(JPEG).sha256


@pytest.mark.parametrize(
    ("file", "pages"),
    [
        pytest.param(JPEG + JPEG, 2, id="concatenated"),
        pytest.param(JPEG * 5, 5, id="five"),
        pytest.param(
            JPEG[:2] + jpeg_segment(0xE2, b"MPF\0" + INDEX) + JPEG[2:] + bytes(9) + JPEG * 2,
            3,
            id="MPO",
        ),
    ],
)
def test_of_several_pictures_the_first_is_read_and_said(file: bytes, pages: int) -> None:
    page = read_page(file)
    assert page.sha256 == read_page(JPEG).sha256
    assert page.pages == pages
    assert page.notes == (f"Page 1 of {pages} in the file was read.",)


def test_thousands_of_pictures_cost_no_time() -> None:
    start = time.process_time()
    assert read_page(encoded(cases.page(8, 8), "JPEG") * 5000).pages == 1000
    assert time.process_time() - start < 1


def test_fill_bytes_before_restarts_are_read() -> None:
    file = encoded(PAGE, "JPEG", restart_marker_blocks=3)
    filled = re.sub(rb"\xff[\xd0-\xd7]", lambda mark: b"\xff\xff" + mark[0], file)
    assert len(filled) > len(file)
    assert read_page(filled).sha256 == read_page(file).sha256


def test_long_runs_of_fill_bytes_cost_no_time() -> None:
    start = time.process_time()
    assert read_page(JPEG[:-2] + b"\xff" * 2_000_000 + JPEG[-2:]).size == (200, 150)
    with pytest.raises(ImageError):
        read_page(cut_jpeg(JPEG, 0.5)[:-2] + b"\xff" * 2_000_000 + b"\0\xff\xd9")
    assert time.process_time() - start < 1


# --- structure, segment by segment ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (JPEG[:2] + b"\xff\xe5\xff\xff" + bytes(40), "a segment of the JPEG ends beyond it"),
        (JPEG[:2] + b"\xff\xe5\0\1" + JPEG[2:], "a segment of the JPEG ends beyond it"),
        (JPEG[:-2], "the JPEG has no end marker"),
        (JPEG[:20] + bytes(40), "the JPEG has no end marker"),
        (JPEG[: JPEG.index(b"\xff\xda") + 14], "the JPEG has no end marker"),
        (JPEG[:2] + JPEG[-2:], "the JPEG has no picture"),
        (JPEG[: JPEG.index(b"\xff\xda")] + JPEG[-2:], "the JPEG has no picture"),
        (JPEG[:2] + JPEG[JPEG.index(b"\xff\xda") :], "a scan of the JPEG comes before its frame"),
        (JPEG[:2] + JPEG[JPEG.index(b"\xff\xc0") :][:19] + JPEG[2:], "a JPEG of several frames"),
    ],
)
def test_a_damaged_structure_is_refused_by_name(file: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=f": {message}|^{message}"):
        read_container(file)


@pytest.mark.parametrize("between", [b"\xff\x01", b"\xff\xd3", b"\xff\xd8", b"\0\0", b"\xff\xff"])
def test_markers_without_a_body_and_bytes_before_markers_are_skipped(between: bytes) -> None:
    assert read_page(JPEG[:20] + between + JPEG[20:]).sha256 == read_page(JPEG).sha256


XMP = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="%d"/>'


@pytest.mark.parametrize(
    ("segments", "orientation"),
    [
        ([(0xE1, b"Exif\0\0" + exif_block(6))], 6),
        ([(0xE1, XMP % 8)], 8),
        ([(0xE0, b"Exif\0\0" + exif_block(6)), (0xE2, b"Exif\0\0" + exif_block(6))], 1),
        ([(0xE0, XMP % 8), (0xE2, XMP % 8)], 1),
        ([(0xE1, b"Exif\0\0" + exif_block(n)) for n in (6, 3)], 6),
        ([(0xE1, XMP % 8), (0xE1, XMP % 3)], 8),
        ([(0xE1, XMP % 8), (0xE1, b"Exif\0\0" + exif_block(6))], 6),
    ],
)
def test_the_first_orientation_in_its_segment_counts(
    segments: list[tuple[int, bytes]], orientation: int
) -> None:
    extra = b"".join(jpeg_segment(*segment) for segment in segments)
    assert read_container(JPEG[:2] + extra + JPEG[2:]).orientation == orientation


@pytest.mark.parametrize(
    "segment", [(0xEE, b"Other\0\0\0\0\0\0\0"), (0xED, b"Adobe\0\0\0\0\0\0\0")]
)
def test_only_adobes_segment_says_what_the_inks_are(segment: tuple[int, bytes]) -> None:
    file = encoded(PAGE.convert("CMYK"), "JPEG")
    at = file.index(b"\xff\xee")
    length = int.from_bytes(file[at + 2 : at + 4], "big")
    with pytest.raises(ImageError, match="CMYK JPEG"):
        read_page(file[:at] + jpeg_segment(*segment) + file[at + 2 + length :])


def test_the_segment_of_jfif_says_that_the_components_are_ycbcr() -> None:
    """Without it, components that are named R, G and B are those."""
    file = bytearray(JPEG)
    frame, scan = file.index(b"\xff\xc0") + 10, file.index(b"\xff\xda") + 5
    for index, name in enumerate(b"RGB"):
        assert file[frame + 3 * index] == file[scan + 2 * index] == index + 1
        file[frame + 3 * index] = file[scan + 2 * index] = name
    assert file[2:4] == b"\xff\xe0"
    bare = bytes(file[:2] + file[2 + 2 + int.from_bytes(file[4:6], "big") :])
    for each in (bytes(file), bare):
        assert np.array_equal(np.asarray(read_page(each).image), pillow_pixels(each))
    assert read_page(bytes(file)).sha256 == read_page(JPEG).sha256 != read_page(bare).sha256


def resized(file: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    at = next(file.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in file)
    return file[: at + 5] + struct.pack(">HH", height, width) + file[at + 9 :]


def test_coefficients_of_several_scans_are_counted_as_memory() -> None:
    """Of four components, 8 bytes for each pixel beside the picture's 4."""
    cmyk = PAGE.convert("CMYK")
    plain = encoded(cmyk, "JPEG", subsampling=0)
    scan = plain.index(b"\xff\xda")
    for file, limit in (
        (encoded(cmyk, "JPEG", progressive=True, subsampling=0), "32,000,000"),
        (plain[:-2] + plain[scan:], "32,000,000"),
        (plain, "36,000,000"),
        (encoded(PAGE, "JPEG", progressive=True), "36,000,000"),
    ):
        assert read_container(resized(file, 5000, 6000)).size == (5000, 6000)
        with pytest.raises(ImageError, match=f"7000 x 6000 pixels, over the {limit} accepted"):
            read_container(resized(file, 7000, 6000))


# --- restarts -------------------------------------------------------------------------------------


def strip_of(units: int, interval: int) -> tuple[bytes, bytes, list[bytes]]:
    """(head, the data's first interval, the others with their markers) of a grey strip."""
    page = cases.page(8 * units, 8).convert("L")
    file = encoded(page, "JPEG", restart_marker_blocks=interval)
    parts = re.split(rb"(?=\xff[\xd0-\xd7])", file[:-2])
    start = parts[0].index(b"\xff\xda") + 10
    return parts[0][:start], parts[0][start:], parts[1:]


@pytest.mark.parametrize(("units", "interval", "restarts"), [(7, 3, 2), (6, 3, 1), (40, 2, 19)])
def test_restarts_are_counted(units: int, interval: int, restarts: int) -> None:
    head, first, others = strip_of(units, interval)
    whole = head + first + b"".join(others)
    assert len(others) == restarts
    sha256 = read_page(whole + b"\xff\xd9").sha256
    following = bytes((0xFF, 0xD0 + restarts % 8))
    assert read_page(whole + following + b"\xff\xd9").sha256 == sha256
    message = f"the JPEG has more than {restarts:,} restarts"
    for surplus in (2, 3, 50):
        with pytest.raises(ImageError, match=message):
            read_page(whole + following * surplus + b"\xff\xd9")
    message = f"lacks some of its {restarts:,} restart markers"
    for fewer in (others[:-1], others[1:], []):
        with pytest.raises(ImageError, match=message):
            read_page(head + first + b"".join(fewer) + b"\xff\xd9")


def test_a_restart_that_was_not_announced_may_stand_behind_the_picture() -> None:
    sha256 = read_page(JPEG).sha256
    for number in (0, 3):
        restart = bytes((0xFF, 0xD0 + number))
        assert read_page(JPEG[:-2] + restart + JPEG[-2:]).sha256 == sha256
        with pytest.raises(ImageError, match="the JPEG has more than 0 restarts"):
            read_page(JPEG[:-2] + 2 * restart + JPEG[-2:])


@pytest.mark.parametrize(
    ("trailer", "pages"), [(JPEG[:50], 2), (JPEG + JPEG[:50], 3), (JPEG[2:], 1), (b"\0" + JPEG, 1)]
)
def test_pictures_that_follow_directly_are_counted(trailer: bytes, pages: int) -> None:
    assert read_container(JPEG + trailer).pages == pages


@pytest.mark.parametrize(
    "segment",
    [
        (0xE0, b"JFXX\0\x10"),
        (0xE1, b"JFIF\0\1\1"),
        (0xE1, b"Exif\0\0" + exif_block(6)),
        (0xE2, b"ICC_PROFILE\0\1\1"),
        (0xED, b"Adobe\0\0\0\0\0\0\0"),
        (0xEE, b"Other\0\0\0\0\0\0\0"),
        (0xFE, b"comment"),
    ],
)
def test_the_picture_alone_is_handed_on(segment: tuple[int, bytes]) -> None:
    picture = read_container(JPEG).picture()
    assert picture == JPEG
    file = JPEG[:20] + jpeg_segment(*segment) + JPEG[20:] + b"more"
    assert read_container(file).picture() == picture


def test_a_scan_without_data_is_missing_rows() -> None:
    empty = JPEG[: JPEG.index(b"\xff\xda") + 14] + b"\xff\xd9"
    assert read_container(empty).size == (200, 150)
    with pytest.raises(ImageError, match="truncated"):
        read_page(empty)


def test_a_jpeg_of_too_many_segments_is_refused() -> None:
    small = jpeg_segment(0xFE, b"")
    assert read_container(JPEG[:20] + small * 99_000 + JPEG[20:]).size == (200, 150)
    with pytest.raises(ImageError, match="more than the 100,000 segments of a JPEG accepted"):
        read_container(JPEG[:20] + small * 100_001 + JPEG[20:])


def test_an_index_of_pictures_counts_in_its_segment_alone() -> None:
    for marker, pages in ((0xE2, 3), (0xE1, 1), (0xED, 1)):
        file = JPEG[:20] + jpeg_segment(marker, b"MPF\0" + INDEX) + JPEG[20:]
        assert read_container(file).pages == pages
