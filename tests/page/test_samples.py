"""Grey of more than 8 bits in arrays and PIL images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.page.samples import check_array, eight_bit_grey, image_of_array
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


def deep(values: list[int], dtype: str = "u2") -> Image.Image:
    return Image.fromarray(np.array([values], dtype))


@pytest.mark.parametrize(
    ("image", "options", "grey", "notes"),
    [
        (deep([0, 0x1234, 0xFFFF]), {}, [0, 0x12, 0xFF], ()),
        (deep([0, 0x1234, 0xFFFF]), {"inverted": True}, [0xFF, 0xED, 0], ()),
        (deep([0, 0xABC, 0xFFF]), {"bits": 12}, [0, 0xAB, 0xFF], ()),
        (deep([0, 0x1FF]), {"bits": 9}, [0, 0xFF], ()),
        (deep([0, 200], "i4"), {}, [0, 200], ()),  # 8 bits in a mode of 32
        (deep([0, 255], "i4"), {}, [0, 255], ()),
        (deep([0, 0x10FF], "i4"), {}, [0, 0x10], ()),
        (deep([5, 0x1000]), {}, [0, 16], ()),
        (
            deep([5, 0xFFF]),
            {},
            [0, 15],
            ("The 16-bit samples of the image reach 4,095 of 65,535: it is dark.",),
        ),
        (
            deep([0, 255]),
            {},
            [0, 0],
            ("The 16-bit samples of the image reach 255 of 65,535: it is dark.",),
        ),
        (
            deep([256, 300], "i4"),
            {},
            [1, 1],
            ("The 16-bit samples of the image reach 300 of 65,535: it is dark.",),
        ),
        (
            deep([0x8000, 0, 0x7FFF]),
            {"signed": True},
            [0, 128, 255],
            ("The image has signed samples, of which -32,768 is black and 32,767 white.",),
        ),
        (
            deep([0, 0x4000, 0x7FFF]),
            {"signed": True},
            [0, 128, 255],
            ("The image has signed samples, of which 0 is black and 32,767 white.",),
        ),
        (
            deep([0xFFFF, 0x7FFF]),
            {"signed": True},
            [127, 255],
            ("The image has signed samples, of which -32,768 is black and 32,767 white.",),
        ),
        (
            deep([0x80, 0xFF, 0, 0x7F], "u1"),
            {"signed": True},
            [0, 127, 128, 255],
            ("The image has signed samples, of which -128 is black and 127 white.",),
        ),
        (
            deep([0, 1, 0x7F], "u1"),
            {"signed": True},
            [0, 2, 254],
            ("The image has signed samples, of which 0 is black and 127 white.",),
        ),
        (deep([0, 9], "u1"), {"inverted": True}, [0, 9], ()),
    ],
)
def test_samples_by_hand(
    image: Image.Image, options: dict[str, Any], grey: list[int], notes: tuple[str, ...]
) -> None:
    reduced, said = eight_bit_grey(image, **options)
    assert (reduced.mode, np.asarray(reduced).tolist(), said) == ("L", [grey], notes)


@pytest.mark.parametrize("values", [[0, 0x10000], [-1, 7]])
def test_32_bits_are_refused_and_16_are_not(values: list[int]) -> None:
    with pytest.raises(ImageError, match="32-bit samples"):
        eight_bit_grey(deep(values, "i4"))
    assert np.asarray(eight_bit_grey(deep([0, 0xFFFF], "i4"))[0]).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 1), np.int16), r"not int16 \[2, 2, 1\]; convert it to uint8$"),
        (np.zeros((2, 2), ">u4"), "not >u4|not uint32"),
        (np.zeros((2, 2, 2), np.uint8), r"not uint8 \[2, 2, 2\]$"),
        (np.zeros((2, 2, 5), np.uint8), r"not uint8 \[2, 2, 5\]$"),
        (np.zeros((2, 2, 2, 1), np.uint8), r"not uint8 \[2, 2, 2, 1\]$"),
        (np.zeros((2, 2, 1, 1), np.uint16), r"not uint16 \[2, 2, 1, 1\]; convert it to uint8$"),
        (np.zeros((2, 2, 4), np.uint16), r"not uint16 \[2, 2, 4\]; convert it to uint8$"),
        (np.zeros((2, 0), np.uint16), r"has no pixels: \[2, 0\]$"),
        (np.zeros((1, 2, 0), np.uint8), r"not uint8 \[1, 2, 0\]$"),
    ],
)
def test_arrays_of_other_shapes_and_types(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        check_array(array)


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [
        ((2, 3), "u1", "L"),
        ((2, 3, 1), "u1", "L"),
        ((2, 3, 3), "u1", "RGB"),
        ((2, 3, 4), "u1", "RGBA"),
        ((2, 3), ">u2", "I;16"),
        ((2, 3, 1), "<u2", "I;16"),
    ],
)
def test_arrays_become_images(shape: tuple[int, ...], dtype: str, mode: str) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    check_array(array)
    image = image_of_array(array)
    assert (image.mode, image.size) == (mode, (3, 2))
    assert np.array_equal(np.asarray(image).reshape(shape), array)
