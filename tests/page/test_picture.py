"""From a checked file to pixels: by its first bytes, and of the size that was checked."""

from __future__ import annotations

import pytest

from pulse_edge.errors import ImageError
from pulse_edge.page.container import Container
from pulse_edge.page.picture import decode_picture, read_container

from goldens import cases
from support.image_files import encoded

PNG = encoded(cases.page(40, 30), "PNG")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_is_known_by_its_first_bytes(form: str) -> None:
    container = read_container(encoded(cases.page(40, 30), form))
    assert (container.format, container.size) == (form, (40, 30))


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
        b"RIFX\x24\0\0\0WEBPVP8 " + bytes(40),
        b"\0" + PNG,
        b"\xff\xd8\0\0",
        b"MB" + bytes(60),
        b"II*",
        b"",
    ],
)
def test_other_first_bytes_are_no_image(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"^not an image that can be read \(PNG, JPEG, TIFF, BMP"):
        read_container(data)


def test_a_picture_of_another_size_than_was_checked_is_refused() -> None:
    image, notes = decode_picture(Container("PNG", (40, 30), lambda: PNG))
    assert (image.size, notes) == ((40, 30), ())
    for size in ((41, 30), (40, 29)):
        with pytest.raises(ImageError, match=r"its PNG has two sizes \(40 x 30\)$"):
            decode_picture(Container("PNG", size, lambda: PNG))


def test_a_picture_that_pillow_does_not_know_is_refused_with_its_format() -> None:
    with pytest.raises(ImageError, match=r"^a BMP file that is damaged, or of an unusual kind"):
        decode_picture(Container("BMP", (40, 30), lambda: PNG))
