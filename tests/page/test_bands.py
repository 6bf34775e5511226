"""Images in bands: the same bytes, in pieces that stay in the processor's cache."""

from __future__ import annotations

import pytest
from PIL import Image

from pulse_edge.page.bands import bands_of

from goldens import cases


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (13, 9), (299, 900), (4000, 150)])
def test_the_bands_are_the_image(mode: str, size: tuple[int, int]) -> None:
    image = cases.page(*size).convert("L").convert(mode)
    assert b"".join(bands_of(image)) == image.tobytes()


@pytest.mark.parametrize(
    ("size", "rows"),
    [
        ((300, 1000), [872, 128]),  # 2 ** 18 pixels are 873 rows of 300
        ((30_000, 25), [8, 8, 8, 1]),
        ((70_000, 20), [8, 8, 4]),  # never fewer than 8 rows
        ((1 << 14, 32), [16, 16]),
        ((1, 300_000), [1 << 18, 37_856]),
    ],
)
def test_a_band_holds_about_a_quarter_of_a_million_pixels(
    size: tuple[int, int], rows: list[int]
) -> None:
    bands = list(bands_of(Image.new("L", size)))
    assert [len(band) // size[0] for band in bands] == rows
