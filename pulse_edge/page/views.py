"""ECG page -> views -> (vision engine) -> image tokens.

Preprocessing and merging are LLaVA-1.6's, to the bit: `process_anyres_image`, `select_best_resolution`,
`resize_and_pad_image`, `unpad_image` in llava/mm_utils.py and llava/model/llava_arch.py, and CLIPImageProcessor's
arithmetic. Sizes are (width, height) in pixels, as Pillow has them; arrays are [height, width, …], as numpy has them.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.bundle.spec import ImageSpec, ModelSpec
from pulse_edge.errors import ImageError
from pulse_edge.page.source import MAX_PIXELS
from pulse_edge.system import usable_cores

BAND_PIXELS, MAX_BANDS = 1 << 18, 8  # of a page that is resized in threads: below, starting them costs more


def select_grid(size: tuple[int, int], grids: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The grid of the largest effective resolution; ties go to the least wasted, then to the first.

    llava/mm_utils.py `select_best_resolution`, with its `int()` truncations.
    """
    width, height = size
    best, best_effective, least_wasted = grids[0], 0, float("inf")
    for grid in grids:
        scale = min(grid[0] / width, grid[1] / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = grid[0] * grid[1] - effective
        if effective > best_effective or (effective == best_effective and wasted < least_wasted):
            best, best_effective, least_wasted = grid, effective, wasted
    return best


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bicubic, across and then down: what `Image.resize` does up to Pillow 12.1, upstream's, to the bit.

    Each pass rounds to bytes, and since 12.2 Pillow picks another order for some tall pages. Going across, a row does
    not look at other rows: a large page goes in bands, one a thread, with the same result.
    """
    _check_elongation(image, size[0] * image.height)
    bicubic = Image.Resampling.BICUBIC
    bands = min(usable_cores(), MAX_BANDS, image.width * image.height // BAND_PIXELS)
    if bands < 2:
        return image.resize((size[0], image.height), bicubic).resize(size, bicubic)
    edges = [image.height * i // bands for i in range(bands + 1)]
    across = Image.new(image.mode, (size[0], image.height))

    def resize(top: int, bottom: int) -> None:
        band = image.crop((0, top, image.width, bottom))
        across.paste(band.resize((size[0], bottom - top), bicubic), (0, top))

    with ThreadPoolExecutor(bands) as pool:  # Pillow releases the interpreter's lock while it resizes
        list(pool.map(resize, edges[:-1], edges[1:]))
    return across.resize(size, bicubic)


def letterbox(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Resize to fit, pasted centred on black (`resize_and_pad_image`)."""
    (width, height), (target_width, target_height) = image.size, target
    scale_w, scale_h = target_width / width, target_height / height
    if scale_w < scale_h:
        new = target_width, min(math.ceil(height * scale_w), target_height)
    else:
        new = min(math.ceil(width * scale_h), target_width), target_height
    page = Image.new("RGB", target, (0, 0, 0))
    page.paste(_resize(image, new), ((target_width - new[0]) // 2, (target_height - new[1]) // 2))
    return page


def _square_pad(image: Image.Image, mean: tuple[float, float, float]) -> Image.Image:
    """Centre on a square of the mean colour (`expand2square`, LLaVA-1.5's `image_aspect_ratio: pad`)."""
    side = max(image.size)
    _check_elongation(image, side * side)
    if image.size == (side, side):
        return image
    page = Image.new("RGB", (side, side), tuple(int(m * 255) for m in mean))
    page.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return page


def _check_elongation(image: Image.Image, pixels: int) -> None:
    """Resizing makes many pixels of few where a page is a thin line. Raises `ImageError`."""
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"a page of {image.width} x {image.height} pixels is too elongated for this model, which would make "
            f"{pixels:,} pixels of it, over the {MAX_PIXELS:,} accepted; crop it"
        )


def _clip_crop(image: Image.Image, side: int) -> Image.Image:
    """CLIPImageProcessor's geometry: shortest edge to `side` (long edge truncated), then the centre square."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if short != side:
        scaled = int(side * long / short)
        _check_elongation(image, side * scaled)
        image = _resize(image, (side, scaled) if width <= height else (scaled, side))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def cut_views(image: Image.Image, spec: ImageSpec, side: int) -> list[Image.Image]:
    """The `side` x `side` views of a page: for anyres the whole page squashed first, then its tiles row by row."""
    if spec.aspect == "pad":
        return [_clip_crop(_square_pad(image, spec.mean), side)]
    if spec.aspect == "square":
        return [_clip_crop(image, side)]
    page = letterbox(image, select_grid(image.size, spec.grids))
    tiles = [
        page.crop((x, y, x + side, y + side)) for y in range(0, page.height, side) for x in range(0, page.width, side)
    ]
    return [_resize(image, (side, side)), *tiles]


def normalise_table(spec: ImageSpec) -> NDArray[np.float32]:
    """[256, 3]: CLIPImageProcessor's value of each byte in each channel.

    Its steps, whose roundings are part of the result: byte / 255 in double, to float32, minus mean, by std in float32.
    """
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)[:, None]
    mean, std = (np.array(values, np.float32) for values in (spec.mean, spec.std))
    table: NDArray[np.float32] = (scaled - mean) / std
    return table


def preprocess(image: Image.Image, model: ModelSpec) -> NDArray[np.float32]:
    """RGB page -> pixels float32 [views, 3, side, side]."""
    side, table = model.vision.image_size, normalise_table(model.image)
    views = cut_views(image, model.image, side)
    pixels = np.empty((len(views), 3, side, side), np.float32)
    for view, out in zip(views, pixels, strict=True):
        bytes_ = np.asarray(view)
        for channel in range(3):
            np.take(table[:, channel], bytes_[..., channel], out=out[channel])
    return pixels


def view_count(size: tuple[int, int], model: ModelSpec) -> int:
    if model.image.aspect != "anyres":
        return 1
    grid, side = select_grid(size, model.image.grids), model.vision.image_size
    return 1 + (grid[0] // side) * (grid[1] // side)
