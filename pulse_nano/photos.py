"""Photographs and scans of training pages: what happens to a page before a model sees it.

A distortion is drawn once and applied to the picture and to the places of its beats, so that event
maps stay right.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Photo:
    """A distortion.

    `matrix` (3, 3) takes homogeneous page coordinates, each axis 0..1, to those of the picture.
    `blur` is a radius in canvas pixels, `coarse` a factor by which the picture was reduced before,
    `quality` of JPEG (None: not compressed), `gain`, `gamma` and `tint` (3,) of its tones, `shadow`
    (rows, columns) factors that are smoothed over the picture, `moire` (amplitude, cycles along x,
    cycles along y), `noise` a standard deviation, `around` the colour of what lies beyond the page.
    """

    matrix: F64
    blur: float
    coarse: float
    quality: int | None
    gain: float
    gamma: float
    tint: tuple[float, float, float]
    shadow: F32
    moire: tuple[float, float, float]
    noise: float
    around: tuple[int, int, int]


def sample_photo(rng: np.random.Generator, share: float) -> Photo | None:
    """A random scan or photograph; None: the page as it was made.

    Args:
        rng: draws everything.
        share: of pages that are distorted.
    """
    if rng.random() >= share:
        return None
    phone = rng.random() < 0.5
    angle = float(rng.normal(0, 1.6 if phone else 0.8))
    bent = rng.uniform(-1, 1, (4, 2)) * (0.028 if phone else 0.004)
    zoom = float(rng.uniform(0.88, 1.05) if phone else rng.uniform(0.96, 1.02))
    moved = rng.uniform(-0.02, 0.02, 2)
    shadow = np.ones((2, 2), np.float32)
    if phone and rng.random() < 0.7:
        shadow = rng.uniform(rng.uniform(0.45, 0.9), 1.0, (3, 4)).astype(np.float32)
    wave = float(rng.uniform(0.01, 0.06)) if phone and rng.random() < 0.2 else 0.0
    return Photo(
        matrix=_homography(angle, bent, zoom, moved),
        blur=float(rng.uniform(0, 1.1)) if rng.random() < 0.6 else 0.0,
        coarse=float(rng.uniform(1, 1.5)) if rng.random() < 0.3 else 1.0,
        quality=int(rng.integers(25, 92)) if rng.random() < 0.7 else None,
        gain=float(rng.uniform(0.7, 1.1)),
        gamma=float(np.exp(rng.uniform(-0.3, 0.4))),
        tint=(1.0, float(rng.uniform(0.92, 1)), float(rng.uniform(0.75, 1)))
        if phone
        else (1.0, 1.0, 1.0),
        shadow=shadow,
        moire=(wave, float(rng.uniform(20, 150)), float(rng.uniform(-60, 60))),
        noise=float(rng.uniform(0, 0.05)),
        around=_any_color(rng),
    )


def _any_color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in rng.integers(0, 256, 3))
    return red, green, blue


def _homography(angle: float, bent: F64, zoom: float, moved: F64) -> F64:
    """(3, 3) from the unit square to where its corners go."""
    corners = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    turn = np.deg2rad(angle)
    turned = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    there = (corners - 0.5) @ turned.T * zoom + 0.5 + bent + moved
    rows = []
    for (x, y), (u, v) in zip(corners, there, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    solved = np.linalg.solve(np.array(rows), there.reshape(-1))
    matrix: F64 = np.append(solved, 1.0).reshape(3, 3)
    return matrix


def take(page: Image.Image, photo: Photo, rng: np.random.Generator) -> Image.Image:
    """The picture of a page, of the same size.

    Args:
        page: RGB.
        photo: the distortion.
        rng: of its noise.
    """
    width, height = page.size
    scale = np.diag([width, height, 1.0])
    back = scale @ np.linalg.inv(photo.matrix) @ np.linalg.inv(scale)
    back /= back[2, 2]
    image = page.transform(
        page.size,
        Image.Transform.PERSPECTIVE,
        tuple(back.reshape(-1)[:8].tolist()),
        Image.Resampling.BILINEAR,
        fillcolor=photo.around,
    )
    if photo.coarse > 1:
        small = (round(width / photo.coarse), round(height / photo.coarse))
        image = image.resize(small, Image.Resampling.BILINEAR).resize(page.size)
    if photo.blur:
        image = image.filter(ImageFilter.BoxBlur(photo.blur))
    image = _tones(image, photo, rng)
    if photo.quality is None:
        return image
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=photo.quality)
        return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def _tones(image: Image.Image, photo: Photo, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    level = np.power(np.linspace(0, 1, 256), photo.gamma) * photo.gain
    table = [min(255, round(255 * value * tint)) for tint in photo.tint for value in level]
    image = image.point(table)
    strength, across, down = photo.moire
    if not photo.noise and not strength and photo.shadow.min() == 1:
        return image
    values = np.asarray(image).astype(np.float32)
    light = np.asarray(
        Image.fromarray(photo.shadow).resize((width, height), Image.Resampling.BILINEAR)
    )
    if strength:
        x = np.linspace(0, 2 * np.pi * across, width, dtype=np.float32)
        y = np.linspace(0, 2 * np.pi * down, height, dtype=np.float32)
        light = light * (1 + np.float32(strength) * np.sin(x + y[:, None]))
    values *= light[:, :, None]
    if photo.noise:
        first = int(rng.integers(GRAIN.size - width * height))
        grain = GRAIN[first : first + width * height].reshape(height, width, 1)
        values += grain * np.float32(255 * photo.noise)
    np.clip(values, 0, 255, out=values)
    return Image.fromarray(values.astype(np.uint8))


# Pieces of it are what pictures have as noise: to draw it anew costs 8 ms a page.
GRAIN: F32 = np.random.default_rng(3).standard_normal(1 << 21, dtype=np.float32)


def move_events(events: F32, photo: Photo, width: int, height: int, top: int) -> F32:
    """The events with their places in the picture, see `shards.EVENT_COLUMNS`.

    Args:
        events: (n, 7), of a canvas.
        photo: the distortion.
        width: of the page on the canvas, in pixels.
        height: likewise.
        top: canvas row where the page begins.
    """
    out = events.copy()
    ones = np.ones(len(events))
    places = np.stack([events[:, 0] / width, (events[:, 1] - top) / height, ones])
    x, y, w = photo.matrix @ places
    out[:, 0] = x / w * width
    out[:, 1] = y / w * height + top
    return out
