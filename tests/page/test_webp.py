"""WebP: its chunks, frames and sizes before libwebp sees them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from pulse_edge.errors import ImageError
from pulse_edge.page.source import read_page

from goldens import cases
from support.image_files import encoded

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
