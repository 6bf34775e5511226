"""A JPEG's picture is proven complete, whether memory holds a second picture or not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page import picture
from pulse_edge.page.limits import MAX_FILE_BYTES, MAX_MEMORY, PICTURE_BYTES, pixels_in_memory
from pulse_edge.page.picture import decode_picture, read_container

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "grey": ("L", {}),
    "colour": ("RGB", {"quality": 90}),
    "subsampled": ("RGB", {"subsampling": 2, "optimize": True}),
    "progressive": ("RGB", {"progressive": True}),
    "restarts": ("RGB", {"restart_marker_rows": 1}),
    "CMYK": ("CMYK", {}),
}


def jpeg(kind: str) -> bytes:
    """Noise in the upper half, and one colour below it."""
    mode, options = KINDS[kind]
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(1).integers(0, 256, (80, 120, bands)).astype(np.uint8)
    pixels[40:] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(), mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture(params=["beside", "alone"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether two pictures fit the memory."""
    if request.param == "alone":
        monkeypatch.setattr(picture, "pixels_in_memory", lambda _: 0)
    return str(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_is_read(kind: str, memory: str) -> None:
    data = jpeg(kind)
    image, notes = decode_picture(read_container(data))
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(data))))
    assert notes == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [2, 3, 5, 9, 40, 200])
def test_a_cut_picture_is_refused_in_both_ways(kind: str, lost: int, memory: str) -> None:
    data = jpeg(kind)
    cut = data[: -2 - lost] + data[-2:]  # with its end marker
    with pytest.raises(ImageError, match=r"truncated|lacks|damaged"):
        decode_picture(read_container(cut))


def test_two_pictures_are_held_only_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several scans, libjpeg keeps the coefficients as well."""
    asked: list[float] = []

    def asking(pixel_bytes: float) -> int:
        asked.append(pixel_bytes)
        return pixels_in_memory(pixel_bytes)

    monkeypatch.setattr(picture, "pixels_in_memory", asking)
    for kind in ("colour", "progressive", "subsampled"):
        decode_picture(read_container(jpeg(kind)))
    subsampled = 2 * (4 + 1 + 1) / 4  # bytes of coefficients for each pixel
    assert asked == [2 * PICTURE_BYTES, 2 * PICTURE_BYTES + subsampled, 2 * PICTURE_BYTES]
    assert pixels_in_memory(8) == (MAX_MEMORY - 2 * MAX_FILE_BYTES) // 8 == 48_000_000
