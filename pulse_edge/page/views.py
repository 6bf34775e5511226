"""ECG page -> views, which the vision tower takes.

Preprocessing is LLaVA-1.6's, to the bit: `process_anyres_image`, `select_best_resolution` and
`resize_and_pad_image` in llava/mm_utils.py, and CLIPImageProcessor's arithmetic. Sizes are (width,
height) in pixels, as in Pillow; arrays are [height, width, ...], as in numpy.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.bundle.spec import ImageSpec, ModelSpec
from pulse_edge.errors import ImageError
from pulse_edge.page.limits import MAX_RESIZED_PIXELS
from pulse_edge.system import usable_cores

# A page is resized in threads, in bands. Below this many pixels starting a thread costs more.
BAND_PIXELS = 1 << 18
MAX_BAND_PIXELS = 1 << 21  # each thread holds a copy of its band, 8 MB at most
MAX_THREADS = 8


def select_grid(size: tuple[int, int], grids: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """The grid of the largest effective resolution; ties go to the least wasted, then to the first.

    llava/mm_utils.py `select_best_resolution`, with its `int()` truncations.
    """
    width, height = size
    best = grids[0]
    best_effective = 0
    least_wasted = float("inf")
    for grid in grids:
        scale = min(grid[0] / width, grid[1] / height)
        effective = min(int(width * scale) * int(height * scale), width * height)
        wasted = grid[0] * grid[1] - effective
        if (effective, -wasted) > (best_effective, -least_wasted):
            best = grid
            best_effective = effective
            least_wasted = wasted
    return best


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bicubic, across and then down, to the bit what `Image.resize` does in upstream's Pillow.

    Up to Pillow 12.1 it goes across first. Each pass rounds to bytes, and since 12.2 Pillow picks
    another order for some tall pages. In the pass across, rows are independent, so a large page
    goes in bands, several at a time, with the same result.
    """
    _check_elongation(image, size[0] * image.height)
    bicubic = Image.Resampling.BICUBIC
    pixels = image.width * image.height
    threads = min(usable_cores(), MAX_THREADS, pixels // BAND_PIXELS)
    if threads < 2:
        return image.resize((size[0], image.height), bicubic).resize(size, bicubic)
    bands = max(threads, pixels // MAX_BAND_PIXELS)
    edges = [image.height * i // bands for i in range(bands + 1)]
    across = Image.new(image.mode, (size[0], image.height))

    def resize(top: int, bottom: int) -> None:
        band = image.crop((0, top, image.width, bottom))
        across.paste(band.resize((size[0], bottom - top), bicubic), (0, top))

    with ThreadPoolExecutor(threads) as pool:  # Pillow releases the GIL while it resizes
        list(pool.map(resize, edges[:-1], edges[1:]))
    return across.resize(size, bicubic)


def letterbox(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """Resize to fit, pasted centred on black (`resize_and_pad_image`)."""
    width, height = image.size
    target_width, target_height = target
    scale_w = target_width / width
    scale_h = target_height / height
    if scale_w < scale_h:
        new = target_width, min(math.ceil(height * scale_w), target_height)
    else:
        new = min(math.ceil(width * scale_h), target_width), target_height
    page = Image.new("RGB", target, (0, 0, 0))
    corner = (target_width - new[0]) // 2, (target_height - new[1]) // 2
    page.paste(_resize(image, new), corner)
    return page


def _square_pad(image: Image.Image, mean: tuple[float, float, float]) -> Image.Image:
    """Centre on a square of the mean colour.

    `expand2square`, LLaVA-1.5's `image_aspect_ratio: pad`.
    """
    side = max(image.size)
    _check_elongation(image, side * side)
    if image.size == (side, side):
        return image
    page = Image.new("RGB", (side, side), tuple(int(m * 255) for m in mean))
    page.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return page


def _check_elongation(image: Image.Image, pixels: int) -> None:
    """Refuse a page so elongated that resizing makes more than `MAX_RESIZED_PIXELS`.

    Args:
        image: the page.
        pixels: how many resizing would make.

    Raises:
        ImageError: they are too many.
    """
    if pixels > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"a page of {image.width} x {image.height} pixels is too elongated for this model, "
            f"which would make {pixels:,} pixels of it, over the {MAX_RESIZED_PIXELS:,} accepted; "
            "crop it"
        )


def _clip_crop(image: Image.Image, side: int) -> Image.Image:
    """CLIPImageProcessor's geometry: shortest edge to `side`, then the centre square.

    The long edge's length is truncated to whole pixels.
    """
    width, height = image.size
    short, long = sorted(image.size)
    if short != side:
        scaled = int(side * long / short)
        _check_elongation(image, side * scaled)
        image = _resize(image, (side, scaled) if width <= height else (scaled, side))
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def cut_views(image: Image.Image, spec: ImageSpec, side: int) -> list[Image.Image]:
    """The `side` x `side` views of a page.

    For anyres the whole page squashed comes first, then its tiles row by row.
    """
    if spec.aspect == "pad":
        return [_clip_crop(_square_pad(image, spec.mean), side)]
    if spec.aspect == "square":
        return [_clip_crop(image, side)]
    if spec.aspect == "stretch":  # SiglipImageProcessor's
        return [_resize(image, (side, side))]
    page = letterbox(image, select_grid(image.size, spec.grids))
    corners = [(x, y) for y in range(0, page.height, side) for x in range(0, page.width, side)]
    tiles = [page.crop((x, y, x + side, y + side)) for x, y in corners]
    return [_resize(image, (side, side)), *tiles]


def normalise_table(spec: ImageSpec) -> NDArray[np.float32]:
    """CLIPImageProcessor's value of each byte in each channel, float32 [256, 3].

    The roundings of its steps are part of the result: byte / 255 in double, to float32, minus mean,
    divided by std in float32.
    """
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)[:, None]
    mean, std = (np.array(values, np.float32) for values in (spec.mean, spec.std))
    table: NDArray[np.float32] = (scaled - mean) / std
    return table


def preprocess(image: Image.Image, model: ModelSpec) -> NDArray[np.float32]:
    """RGB page -> pixels float32 [views, 3, side, side].

    Raises:
        ImageError: the page is so elongated that resizing it would take too much memory.
    """
    side = model.vision.image_size
    table = normalise_table(model.image)
    views = cut_views(image, model.image, side)
    pixels = np.empty((len(views), 3, side, side), np.float32)
    for view, out in zip(views, pixels, strict=True):
        bytes_ = np.asarray(view)
        for channel in range(3):
            np.take(table[:, channel], bytes_[..., channel], out=out[channel])
    return pixels


def view_count(size: tuple[int, int], model: ModelSpec) -> int:
    """Views of a page of this (width, height) in pixels."""
    if model.image.aspect != "anyres":
        return 1
    grid = select_grid(size, model.image.grids)
    side = model.vision.image_size
    return 1 + (grid[0] // side) * (grid[1] // side)
