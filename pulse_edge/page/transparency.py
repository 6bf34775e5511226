"""Transparent pixels: composited on white, as paper is, or left to the authors' way."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from pulse_edge.errors import ImageError
from pulse_edge.params import AlphaMode

AlphaRecord = Literal["none", "white", "dropped"]  # "none": no pixel was transparent
WHOLLY_TRANSPARENT = "The image is wholly transparent: the page is blank."


def without_alpha(
    image: Image.Image, mode: AlphaMode = "white"
) -> tuple[Image.Image, AlphaRecord, tuple[str, ...]]:
    """(RGB image, what was done, notes) of an image in any of Pillow's 8-bit modes.

    An RGB image is returned itself, without a copy.

    Args:
        image: decoded. A colour in its `info["transparency"]` is transparent, too.
        mode: what becomes of transparent pixels.

    Raises:
        ImageError: a mode that Pillow cannot convert to RGB.
    """
    if image.mode == "LAB":
        raise ImageError("an image of CIE Lab colours; save it as RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB"), "none", ()
    if image.mode not in ("LA", "RGBA"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    lowest, highest = image.getchannel("A").getextrema()
    if lowest == 255:
        return image.convert("RGB"), "none", ()
    if mode == "drop":
        return image.convert("RGB"), "dropped", ()
    return _on_white(image), "white", (WHOLLY_TRANSPARENT,) if highest == 0 else ()


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "LA":
        grey = Image.new("L", image.size, 255)
        grey.paste(image.getchannel("L"), mask=image.getchannel("A"))
        return grey.convert("RGB")
    page = Image.new("RGB", image.size, (255, 255, 255))
    page.paste(image, mask=image)
    return page
