"""WebP: its chunks, frames and sizes before libwebp sees them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from pulse_edge.errors import ImageError
from pulse_edge.page.source import read_page
from pulse_edge.page.webp import read_webp

from goldens import cases
from support.image_files import encoded, exif_block

SMALL = cases.page(40, 30)
KINDS: dict[str, dict[str, Any]] = {
    "lossy": {"quality": 90},
    "lossless": {"lossless": True},
    "extended": {"lossless": True, "exif": b"garbage", "icc_profile": b"garbage"},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_sizes_are_read_from_every_kind_of_header(options: dict[str, Any]) -> None:
    page = read_page(encoded(SMALL, "WEBP", **options))
    assert page.size == (40, 30)
    if "lossless" in options:
        assert page.sha256 == read_page(SMALL).sha256


@pytest.mark.parametrize("frames", [2, 5])
def test_of_an_animation_the_first_frame_is_read_and_said(frames: int) -> None:
    more = [cases.page(40, 30, seed) for seed in range(1, frames)]
    file = encoded(SMALL, "WEBP", lossless=True, save_all=True, append_images=more)
    page = read_page(file)
    assert np.array_equal(np.asarray(page.image), np.asarray(SMALL))
    assert page.pages == frames
    assert page.notes == (f"Page 1 of {frames} in the file was read.",)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_truncated_webp_is_refused(options: dict[str, Any]) -> None:
    file = encoded(SMALL, "WEBP", **options)
    for length in range(12, len(file), 61):
        with pytest.raises(ImageError, match="truncated"):
            read_page(file[:length])


def test_a_canvas_over_the_limit_is_refused_by_its_header() -> None:
    """The limit is lower than for other formats: libwebp keeps several copies of the canvas."""
    head = b"VP8X" + struct.pack("<IB3x", 10, 0)
    for width, height in ((6000, 5000), (1 << 24, 1 << 24)):
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = b"WEBP" + head + size
        with pytest.raises(ImageError, match=r"over the 22,588,235 accepted; scale it down"):
            read_page(b"RIFF" + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"WEBP", "no picture"),
        (b"WEBPVP8 \x04\0\0\0abcd", "no size|not"),
        (b"WEBPVP8X\xff\xff\0\0" + bytes(20), "ends beyond it"),
        (b"WEBPEXIF\x04\0\0\0abcd", "no picture"),
    ],
)
def test_what_is_no_webp_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_page(b"RIFF" + struct.pack("<I", len(body)) + body)


def webp(*chunks: tuple[bytes, bytes], tail: bytes = b"") -> bytes:
    """A WebP of these chunks, and bytes behind them."""
    parts = [
        kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for kind, body in chunks
    ]
    body = b"WEBP" + b"".join(parts) + tail
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless(width: int, height: int) -> bytes:
    return b"\x2f" + ((height - 1) << 14 | (width - 1)).to_bytes(4, "little") + bytes(5)


def lossy(width: int, height: int) -> bytes:
    return bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", width, height)


def extended(width: int, height: int) -> bytes:
    return bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


@pytest.mark.parametrize(
    ("kind", "body", "size"),
    [
        (b"VP8L", lossless(40, 30), (40, 30)),
        (b"VP8L", lossless(12_000, 1500), (12_000, 1500)),
        (b"VP8L", lossless(1, 1), (1, 1)),
        (b"VP8L", lossless(1500, 16_384)[:5] + b"\xff" * 5, None),
        (b"VP8L", lossless(16_384, 1378), (16_384, 1378)),
        (b"VP8 ", lossy(16_383, 1000), (16_383, 1000)),
        (b"VP8 ", lossy(700, 16_383), (700, 16_383)),
        (b"VP8 ", lossy(700 | 0xC000, 500 | 0x4000), (700, 500)),  # upper bits scale
        (b"VP8X", extended(70_001, 300), (70_001, 300)),
        (b"VP8X", extended(300, 70_001), (300, 70_001)),
    ],
)
def test_sizes_of_each_kind_of_chunk(
    kind: bytes, body: bytes, size: tuple[int, int] | None
) -> None:
    if size is None:
        with pytest.raises(ImageError, match="1500 x 16384 pixels, over the 22,588,235 accepted"):
            read_webp(webp((kind, body)))
    else:
        assert read_webp(webp((kind, body))).size == size


def test_the_first_size_counts_and_needs_ten_bytes() -> None:
    file = webp((b"VP8X", extended(40, 30)), (b"VP8L", lossless(9, 9)))
    assert read_webp(file).size == (40, 30)
    with pytest.raises(ImageError, match="the WebP has no size"):
        read_webp(webp(tail=b"VP8X\x09\0\0\0" + extended(40, 30)[:9]))


@pytest.mark.parametrize("tail", [b"", b"1", b"1234567"])
def test_a_rest_that_is_no_chunk_is_no_matter(tail: bytes) -> None:
    assert read_webp(webp((b"VP8X", extended(40, 30)), tail=tail)).size == (40, 30)


def test_a_chunk_may_end_with_the_file_and_not_beyond() -> None:
    head = (b"VP8X", extended(40, 30))
    assert read_webp(webp(head, tail=b"JUNK\3\0\0\0abc")).size == (40, 30)
    assert read_webp(webp(head, (b"JUNK", b"abc"), (b"EXIF", exif_block(6)))).orientation == 6
    for length in (4, 100, 0xFFFFFFFF):
        with pytest.raises(ImageError, match="a chunk of the WebP ends beyond it"):
            read_webp(webp(head, tail=b"JUNK" + struct.pack("<I", length) + b"abc"))


def test_the_end_of_the_file_is_named() -> None:
    file = webp((b"VP8X", extended(40, 30)))
    with pytest.raises(ImageError, match=f"the WebP ends at byte 29 of {len(file)}$"):
        read_webp(file[:-1])
    assert read_webp(file + b"more").size == (40, 30)


def test_of_each_kind_of_metadata_the_first_counts() -> None:
    head = (b"VP8X", extended(40, 30))
    xmp = b'<x tiff:Orientation="%d"/>'
    assert read_webp(webp(head, (b"XMP ", xmp % 8), (b"XMP ", xmp % 3))).orientation == 8
    two = (b"EXIF", exif_block(6)), (b"EXIF", exif_block(3))
    assert read_webp(webp(head, (b"XMP ", xmp % 8), *two)).orientation == 6


def test_frames_are_counted_to_a_limit() -> None:
    frames = [(b"ANMF", b"")] * 1200
    for count, pages in ((0, 1), (1, 1), (2, 2), (999, 999), (1200, 1000)):
        container = read_webp(webp((b"VP8X", extended(40, 30)), *frames[:count]))
        assert container.pages == pages
        assert len(container.notes) == (pages > 1)


def test_a_webp_of_too_many_chunks_is_refused() -> None:
    head = (b"VP8X", extended(40, 30))
    assert read_webp(webp(head, *[(b"JUNK", b"")] * 99_999)).size == (40, 30)
    with pytest.raises(ImageError, match="more than the 100,000 chunks of a WebP accepted"):
        read_webp(webp(head, *[(b"JUNK", b"")] * 100_001))
