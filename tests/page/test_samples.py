"""Grey of more than 8 bits in arrays and PIL images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page.source import read_page

GREY = (np.arange(1200) % 256).astype(np.uint8).reshape(30, 40)
DEEP = GREY.astype(np.uint16) * 257


def converted(mode: str) -> Image.Image:
    """`DEEP` in one of Pillow's modes of 16 bits; `Image.convert` clips some of them."""
    order = ">" if mode == "I;16B" else "<"
    return Image.frombytes(mode, (40, 30), DEEP.astype(order + "u2").tobytes())


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(DEEP, id="uint16"),
        pytest.param(DEEP[..., None], id="uint16, one channel"),
        pytest.param(DEEP.astype(">u2"), id="uint16, big-endian"),
        pytest.param(DEEP[::-1, ::-1][::-1, ::-1], id="uint16, strided"),
        pytest.param(DEEP + np.where(GREY < 255, 254, 0).astype(np.uint16), id="low bytes differ"),
        pytest.param(converted("I;16"), id="I;16"),
        pytest.param(converted("I;16L"), id="I;16L"),
        pytest.param(converted("I;16B"), id="I;16B"),
        pytest.param(Image.fromarray(DEEP.astype(np.int32)), id="I of 16 bits"),
        pytest.param(Image.fromarray(GREY.astype(np.int32)), id="I of 8 bits"),
    ],
)
def test_16_bit_grey_is_its_high_byte(source: Image.Image | np.ndarray) -> None:
    expected = np.repeat(GREY[..., None], 3, axis=2)
    if isinstance(source, np.ndarray) and (source & 0xFF != source >> 8).any():
        expected = np.repeat((source >> 8).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(np.asarray(read_page(source).image), expected)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(Image.fromarray(DEEP.astype(np.int32) * 257), id="I of 32 bits"),
        pytest.param(Image.fromarray(DEEP.astype(np.int32) - 1), id="I, negative"),
        pytest.param(Image.fromarray(GREY.astype(np.float32)), id="F"),
        pytest.param(Image.fromarray(GREY.astype(np.float32) / 255), id="F in 0..1"),
    ],
)
def test_32_bit_images_are_refused_by_name(source: Image.Image) -> None:
    with pytest.raises(ImageError, match=r"(32-bit|floating-point) samples; save it as an 8-bit"):
        read_page(source)


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (GREY > 9, r"not bool \[30, 40\]; convert it with array.astype\(numpy.uint8\) \* 255"),
        (GREY / 255, r"not float64 .*0\.\.1 with \(array \* 255\).round\(\)"),
        ((GREY / 255).astype(np.float16), "not float16"),
        (GREY.astype(np.int64), "not int64 .*convert it to uint8"),
        (DEEP[..., None].repeat(3, axis=2), r"not uint16 \[30, 40, 3\]"),
        (GREY.astype(complex), "not complex128"),
        (np.array([["a"]]), "not <U1"),
        (np.array([[None]]), "not object"),
    ],
)
def test_other_arrays_are_refused_with_a_conversion(array: np.ndarray, advice: str) -> None:
    with pytest.raises(ImageError, match="a numpy image is uint8 .*or uint16 .*" + advice):
        read_page(array)


def test_a_page_of_few_of_its_16_bits_is_read_with_a_note() -> None:
    page = read_page(DEEP >> 4)
    assert page.notes == ("The 16-bit samples of the image reach 4,095 of 65,535: it is dark.",)
    assert read_page(DEEP).notes == ()
