"""What the model's views show of a training page: its ink and grid, coloured, photographed and cut
into tiles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from PIL import Image

from pulse_edge.simulation.pages import PaperLook
from pulse_nano.photos import Photo, take
from pulse_nano.shards import CANVAS, F32, SIDE, U8, Page

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIPImageProcessor's, see `pulse_edge.page.views`
STD = (0.26862954, 0.26130258, 0.27577711)
BLACK = tuple(-m / s for m, s in zip(MEAN, STD, strict=True))


def _paint(page: Page, where: str, look: PaperLook, rng: np.random.Generator | None) -> F32:
    """float32 (3, height, width), 0..1.

    With the sheet's share s = 1 - ink and the grid's separable line masks, a channel is a weighted
    sum of the same few planes, so all three are one matrix product.
    """
    ink, grid = page.base if where == "base" else page.ink, page.grid
    height, width = ink.shape
    planes = np.empty((5, height, width), np.float32)
    sheet, all_lines, major_lines, ones, grain = planes
    np.multiply(ink, np.float32(-1 / 255), out=sheet)
    sheet += np.float32(1)
    np.multiply(sheet, grid[f"x all {where}"], out=all_lines)
    all_lines *= grid[f"y all {where}"][:, None]
    np.multiply(sheet, grid[f"x major {where}"], out=major_lines)
    major_lines *= grid[f"y major {where}"][:, None]
    if page.plot is not None:
        _uncover(planes, page.plot, page.ink.shape)
    ones[:] = 1
    noisy = bool(look.noise) and rng is not None
    if look.shade:
        angle = np.deg2rad(look.tilt)
        down = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
        across = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(angle))
        planes[:4] *= 1 - np.float32(look.shade) * (down + across + np.float32(0.5))
    if noisy and rng is not None:
        rng.standard_normal(dtype=np.float32, out=grain)
    paper, minor, major, pen = (
        np.array(color) for color in (look.paper, look.minor, look.major, look.ink)
    )
    weights = np.stack(
        [major - pen, paper - minor, minor - major, pen, np.full(3, look.noise)], axis=1
    )
    used = 5 if noisy else 4
    out = (weights[:, :used].astype(np.float32) @ planes[:used].reshape(used, -1)).reshape(
        3, height, width
    )
    if noisy:
        np.clip(out, 0, 1, out=out)
    return out


def _uncover(planes: F32, plot: tuple[int, int, int, int], canvas: tuple[int, ...]) -> None:
    """No grid lines outside of `plot`, in place: planes 1 and 2 are the sheet there, as plane 0."""
    height, width = planes.shape[1:]
    across, down = width / canvas[1], height / canvas[0]
    left, right = round(plot[0] * across), round(plot[2] * across)
    top, bottom = round(plot[1] * down), round(plot[3] * down)
    for rows, columns in (
        (slice(0, top), slice(None)),
        (slice(bottom, None), slice(None)),
        (slice(top, bottom), slice(0, left)),
        (slice(top, bottom), slice(right, None)),
    ):
        planes[1:3, rows, columns] = planes[0, rows, columns]


def _standardise(rgb: F32) -> F32:
    """(3, height, width) in 0..1 -> normalised for the tower, in place."""
    rgb -= np.array(MEAN, np.float32)[:, None, None]
    rgb *= 1 / np.array(STD, np.float32)[:, None, None]
    return rgb


def compose(
    page: Page,
    look: PaperLook = PaperLook(),  # noqa: B008
    rng: np.random.Generator | None = None,
    photo: Photo | None = None,
) -> F32:
    """Normalised views float32 (5, 3, 336, 336): base view, then the tiles row by row, as
    `image.preprocess` has them.

    Args:
        page: to compose.
        look: its colours.
        rng: of the look's noise and the photo's; None: no noise.
        photo: a distortion of the page; needs `rng`.
    """
    if photo is not None and rng is not None:
        values = _paint(page, "canvas", replace(look, noise=0.0), None).transpose(1, 2, 0)
        flat = np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)
        return views_of(take(Image.fromarray(flat), photo, rng))
    tiles = tile(_standardise(_paint(page, "canvas", look, rng)))
    return np.concatenate([_standardise(_paint(page, "base", look, rng))[None], tiles])


def tile(page: F32) -> F32:
    """Normalised page (3, height <= 672, 672) -> tiles (4, 3, 336, 336), letterboxed on black."""
    canvas = np.empty((3, CANVAS, CANVAS), np.float32)
    canvas[:] = np.array(BLACK, np.float32)[:, None, None]
    top = (CANVAS - page.shape[1]) // 2
    canvas[:, top : top + page.shape[1]] = page
    return canvas.reshape(3, 2, SIDE, 2, SIDE).transpose(1, 3, 0, 2, 4).reshape(4, 3, SIDE, SIDE)


def normalise(rgb: U8) -> F32:
    """uint8 (height, width, 3) -> float32 (3, height, width)."""
    scaled = rgb.astype(np.float32).transpose(2, 0, 1) * np.float32(1 / 255)
    return (scaled - np.array(MEAN, np.float32)[:, None, None]) / np.array(STD, np.float32)[
        :, None, None
    ]


def views_of(image: Image.Image) -> F32:
    """Any landscape image whose grid is 672 x 672 -> normalised views, as `compose` returns
    them."""
    height = min(CANVAS, math.ceil(image.height * CANVAS / image.width))
    tiles = tile(normalise(np.asarray(image.resize((CANVAS, height)))))
    return np.concatenate([normalise(np.asarray(image.resize((SIDE, SIDE))))[None], tiles])
