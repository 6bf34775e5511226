"""Known distortions of a page, and which check has to find them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.page_checks.sheets import Sheet

Distortion = Callable[[Sheet, np.random.Generator], Image.Image]


def turned_page(image: Image.Image, degrees: float) -> Image.Image:
    """A page turned counter-clockwise, on paper of its own colour."""
    corner = image.getpixel((1, 1))
    assert isinstance(corner, tuple)
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=corner)


def squashed(image: Image.Image, ratio: float) -> Image.Image:
    """A page whose width is `ratio` times as large."""
    size = round(image.width * ratio), image.height
    return image.resize(size, Image.Resampling.BICUBIC)


def compressed(image: Image.Image, quality: int) -> Image.Image:
    """A page as JPEG gives it back."""
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def _blurred(sheet: Sheet, rng: np.random.Generator) -> Image.Image:
    radius = max(2.5, sheet.px_per_mm * rng.uniform(0.4, 0.7))
    return sheet.image.filter(ImageFilter.GaussianBlur(float(radius)))


def _cropped(sheet: Sheet, rng: np.random.Generator) -> Image.Image:
    width, height = sheet.image.size
    cut = round(width * rng.uniform(0.2, 0.4))
    box = (0, 0, width - cut, height) if rng.random() < 0.5 else (cut, 0, width, height)
    return sheet.image.crop(box)


def _faded(sheet: Sheet, rng: np.random.Generator) -> Image.Image:
    white = Image.new("RGB", sheet.image.size, "white")
    return Image.blend(sheet.image, white, rng.uniform(0.8, 0.9))


def _inverted(sheet: Sheet, _rng: np.random.Generator) -> Image.Image:
    return ImageOps.invert(sheet.image)


def _sideways(sheet: Sheet, rng: np.random.Generator) -> Image.Image:
    return sheet.image.rotate(90 * float(rng.choice([1, 3])), expand=True)


def _small(sheet: Sheet, rng: np.random.Generator) -> Image.Image:
    dpi = 25.4 * sheet.px_per_mm
    factor = rng.uniform(30, 50) / dpi
    width, height = sheet.image.size
    size = round(width * factor), round(height * factor)
    return sheet.image.resize(size, Image.Resampling.LANCZOS)


# By the check that has to warn.
DISTORTIONS: dict[str, tuple[str, Distortion]] = {
    "blurred": ("blur", _blurred),
    "cropped": ("crop", _cropped),
    "faded": ("contrast", _faded),
    "inverted": ("contrast", _inverted),
    "sideways": ("orientation", _sideways),
    "small": ("resolution", _small),
}
