"""Grey samples of more than 8 bits as 8-bit grey: the high byte, as an 8-bit scan would have it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.errors import ImageError

_SAVE = "save it as an 8-bit or 16-bit PNG"
# 12-bit samples in 16-bit numbers would make a nearly black page.
_DARK = 1 << 12
ARRAYS = "uint8 [height, width] or [height, width, 1|3|4], or uint16 [height, width]"


def check_array(array: NDArray[np.generic]) -> None:
    """Refuse an array that is no image.

    Args:
        array: uint8 [height, width] or [height, width, 1|3|4], or uint16 [height, width].

    Raises:
        ImageError: another type or shape, or no pixels.
    """
    grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    colour = array.ndim == 3 and array.shape[2] in (3, 4)
    deep = array.dtype.kind == "u" and array.dtype.itemsize == 2
    if not ((array.dtype == np.uint8 and (grey or colour)) or (deep and grey)):
        advice = {
            "b": "; convert it with array.astype(numpy.uint8) * 255",
            "f": "; convert values in 0..1 with (array * 255).round().astype(numpy.uint8)",
        }.get(array.dtype.kind, "; convert it to uint8")
        raise ImageError(
            f"a numpy image is {ARRAYS}, not {array.dtype} {list(array.shape)}"
            + (advice if array.dtype != np.uint8 else "")
        )
    if 0 in array.shape:
        raise ImageError(f"the image has no pixels: {list(array.shape)}")


def image_of_array(array: NDArray[np.generic]) -> Image.Image:
    """An array that `check_array` accepts, as an image of mode L, RGB, RGBA or I;16."""
    flat = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return Image.fromarray(flat if flat.dtype == np.uint8 else flat.astype(np.uint16))


def eight_bit_grey(
    image: Image.Image, bits: int = 16, signed: bool = False, inverted: bool = False
) -> tuple[Image.Image, tuple[str, ...]]:
    """(image, notes): an image of deep grey as 8-bit grey; other images as they are.

    Args:
        image: a decoded image. Of mode I, the values must fit in 16 bits.
        bits: of a sample.
        signed: whether samples are signed. They count from their least value, and from 0 if none is
            negative.
        inverted: whether the least value is white.

    Raises:
        ImageError: 32-bit or floating-point samples.
    """
    if image.mode == "F":
        raise ImageError(f"an image of floating-point samples; {_SAVE}")
    if signed and image.mode == "L":
        values = np.asarray(image).view(np.int8)
        return Image.fromarray(_from_least(values, 8).astype(np.uint8)), (_signed_note(values),)
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image, ()
    samples = np.asarray(image)
    notes: tuple[str, ...] = ()
    if signed:
        values = samples.astype(np.uint16).view(np.int16)
        samples = _from_least(values, 16)
        notes = (_signed_note(values),)
    highest = int(samples.max())
    if image.mode == "I" and (highest > 0xFFFF or samples.min() < 0):
        raise ImageError(f"an image of 32-bit samples; {_SAVE}")
    if image.mode == "I" and highest <= 0xFF:
        bits = 8
    if bits == 16 and highest < _DARK:
        notes += (f"The 16-bit samples of the image reach {highest:,} of 65,535: it is dark.",)
    grey = (samples >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(~grey if inverted else grey), notes


def _from_least(values: NDArray[np.signedinteger], bits: int) -> NDArray[np.uint16]:
    """Signed samples as unsigned ones over the whole range."""
    wide = values.astype(np.int32)
    if wide.min() >= 0:
        return (wide << 1).astype(np.uint16)
    return (wide + (1 << (bits - 1))).astype(np.uint16)


def _signed_note(values: NDArray[np.signedinteger]) -> str:
    limits = np.iinfo(values.dtype)
    black = limits.min if values.min() < 0 else 0
    return f"The image has signed samples, of which {black:,} is black and {limits.max:,} white."
