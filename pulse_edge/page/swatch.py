"""A page reduced for checks: its brightness, its colour, and which pixels are ink."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

Plane = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_LONG_SIDE = 1250  # px of a reduced page: 4 px a millimetre of an A4 sheet
_CHROMA = 24  # difference of channels from which on a pixel is coloured
_BLOCK = 16  # px of a reduced page, over which paper is taken as even


@dataclass(frozen=True)
class Swatch:
    """A reduced page.

    Attributes:
        scale: pixels of the page for each of these, along an edge.
        light: the brightest channel, uint8 [height, width]. Coloured grids are bright in
            it, and ink is dark.
        dark: the darkest channel. Coloured grids are dark in it, too.
        ink: pixels far darker than the paper around them.
        paper: brightness of the paper: of most pixels.
        black: brightness of the darkest strokes.
        coloured: share of the pixels that are not grey, 0..1.
    """

    scale: int
    light: Plane
    dark: Plane
    ink: Mask
    paper: float
    black: float
    coloured: float

    @property
    def contrast(self) -> float:
        """How much darker ink is than paper, 0..1."""
        return max(0.0, self.paper - self.black) / 255


def swatch_of(image: Image.Image) -> Swatch:
    """Reduce an RGB page by a whole number."""
    scale = max(1, round(max(image.size) / _LONG_SIDE))
    small = image.reduce(scale) if scale > 1 else image
    red, green, blue = small.split()
    light = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    dark = ImageChops.darker(ImageChops.darker(red, green), blue)
    shares = np.cumsum(light.histogram()) / (small.width * small.height)
    paper = float(np.searchsorted(shares, 0.6))
    black = float(np.searchsorted(shares, 0.002))
    limit = max(12, round(0.45 * (paper - black)))
    ink = np.asarray(ImageChops.subtract(local_mean(light), light)) > limit
    brightest, darkest = np.asarray(light), np.asarray(dark)
    coloured = np.count_nonzero(brightest - darkest >= _CHROMA) / brightest.size
    return Swatch(scale, brightest, darkest, ink, paper, black, coloured)


def local_mean(plane: Image.Image) -> Image.Image:
    """A plane of one channel, blurred over a few blocks."""
    return local_blocks(plane).resize(plane.size, Image.Resampling.BILINEAR)


def local_blocks(plane: Image.Image) -> Image.Image:
    """`local_mean` with a pixel for each block."""
    blocks = plane.reduce(_BLOCK) if min(plane.size) >= _BLOCK else plane
    return blocks.filter(ImageFilter.BoxBlur(1))


def grown(mask: Mask) -> Mask:
    """A mask and the pixels beside it."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    return out
