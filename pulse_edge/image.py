"""ECG page -> views -> (vision engine) -> image tokens.

Preprocessing and merging are LLaVA-1.6's, to the bit: `process_anyres_image`, `select_best_resolution`,
`resize_and_pad_image`, `unpad_image` in llava/mm_utils.py and llava/model/llava_arch.py, and CLIPImageProcessor's
arithmetic. Sizes are (width, height) in pixels, as Pillow has them; arrays are [height, width, …], as numpy has them.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .bundle import ImageSpec, ModelSpec
from .errors import ImageError
from .machine import usable_cores

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.generic]
Scalar = TypeVar("Scalar", bound=np.generic)
BAND_PIXELS, MAX_BANDS = 1 << 18, 8  # of a page that is resized in threads: below, starting them costs more
MAX_PIXELS = 89_478_485  # Pillow's own line for a decompression bomb: a quarter GiB of RGB
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
ORIENTATION_TAG = 0x0112  # EXIF


@dataclass(frozen=True)
class Page:
    """A decoded page: RGB, upright. `sha256` runs over its size and RGB bytes, whatever file it came from."""

    image: Image.Image
    sha256: str
    source: str
    format: str
    orientation: int  # EXIF value that was applied; 1 when there was none
    decode_seconds: float

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size


def read_bytes(source: ImageSource) -> tuple[bytes | None, str]:
    """(encoded bytes, a name for messages); bytes are None where the source is pixels already."""
    if isinstance(source, (Image.Image, np.ndarray)):
        return None, type(source).__name__
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), f"{len(source)} bytes"
    if isinstance(source, (str, os.PathLike)):
        try:
            return Path(source).read_bytes(), os.fspath(source)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise ImageError(f"{os.fspath(source)}: cannot be read ({reason})") from None
    if hasattr(source, "read"):
        try:
            data = source.read()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise ImageError(f"the image's file object cannot be read ({error})") from None
        if not isinstance(data, bytes):
            raise ImageError("the image's file object returns text; open it in binary mode ('rb')")
        return data, str(getattr(source, "name", "file object"))
    raise ImageError(
        f"an image is a path, bytes, a binary file object, a PIL image or a numpy array, not {type(source).__name__}"
    )


def decode(source: ImageSource, data: bytes | None, name: str) -> Page:
    """Decode, turn upright (EXIF), make RGB as `Image.convert` does (alpha is dropped, not composited).

    Raises `ImageError` for what is not an image, is truncated, empty or larger than `MAX_PIXELS`.
    """
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large and of damaged files: they pass the checks below, or raise
            image = _open(source, data)
            width, height = image.size
            if width < 1 or height < 1:
                raise ImageError(f"{name}: the image is {width} x {height} pixels")
            if width * height > MAX_PIXELS:
                raise ImageError(f"{name}: {width} x {height} pixels, over the {MAX_PIXELS:,} accepted; scale it down")
            form = image.format or image.mode
            orientation = image.getexif().get(ORIENTATION_TAG, 1)
            orientation = int(orientation) if orientation in range(1, 9) else 1  # others are not applied
            rgb = (ImageOps.exif_transpose(image) or image).convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that can be read ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than the {MAX_PIXELS:,} pixels accepted; scale it down") from None
    except MemoryError:
        raise ImageError(f"{name}: too large for this machine's memory; scale it down") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise ImageError(f"{name}: the image is damaged or truncated ({type(error).__name__}: {error})") from None
    digest = hashlib.sha256(b"%d %d RGB " % rgb.size)
    digest.update(rgb.tobytes())
    return Page(rgb, digest.hexdigest(), name, form, orientation, time.perf_counter() - start)


def _open(source: ImageSource, data: bytes | None) -> Image.Image:
    if data is not None:
        if not data:
            raise ImageError("the image is empty (0 bytes)")
        return Image.open(io.BytesIO(data), formats=FORMATS)
    if isinstance(source, Image.Image):
        return source
    array = np.asarray(source)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"a numpy image is uint8 [height, width] or [height, width, 1|3|4], not {array.dtype} {list(array.shape)}"
        )
    if 0 in array.shape:
        raise ImageError(f"the image has no pixels: {list(array.shape)}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def read_page(source: ImageSource) -> Page:
    """Source -> decoded page. Raises `ImageError`."""
    return decode(source, *read_bytes(source))


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


def unpad_box(size: tuple[int, int], rows: int, cols: int) -> tuple[slice, slice]:
    """Rows and columns of a [rows, cols] feature map that hold page, not letterbox (`unpad_image`)."""
    width, height = size
    if width / height > cols / rows:
        cut = (rows - int(height * (cols / width))) // 2
        return slice(cut, rows - cut), slice(0, cols)
    cut = (cols - int(width * (rows / height))) // 2
    return slice(0, rows), slice(cut, cols - cut)


def token_count(size: tuple[int, int], model: ModelSpec) -> int:
    """Image tokens of a page of this size."""
    side = model.vision.grid
    if model.image.merge == "flat" or model.image.aspect != "anyres":
        return view_count(size, model) * side * side
    grid = select_grid(size, model.image.grids)
    rows, cols = (side * (edge // model.vision.image_size) for edge in (grid[1], grid[0]))
    box = unpad_box(size, rows, cols)
    kept = [len(range(*s.indices(n))) for s, n in zip(box, (rows, cols), strict=True)]
    return side * side + kept[0] * (kept[1] + 1)


def merge(
    features: NDArray[Scalar], size: tuple[int, int], model: ModelSpec, newline: NDArray[Any] | None
) -> NDArray[Scalar]:
    """View features [views, patches, hidden] -> image tokens [tokens, hidden], in upstream's order.

    `flat`: view after view. `spatial_unpad`: base view, then the tiles as one map without its letterbox, each row
    closed by `newline` [hidden] (llava_arch.py `prepare_inputs_labels_for_multimodal`).
    """
    hidden = features.shape[-1]
    if model.image.merge == "flat" or model.image.aspect != "anyres":  # upstream merges only lists of views
        return features.reshape(-1, hidden)
    assert newline is not None, "export writes the newline row for every spatial_unpad model"
    side = model.vision.grid
    grid = select_grid(size, model.image.grids)
    across, down = (edge // model.vision.image_size for edge in grid)
    tiles = features[1:].reshape(down, across, side, side, hidden)
    page = tiles.transpose(0, 2, 1, 3, 4).reshape(down * side, across * side, hidden)
    page = page[unpad_box(size, down * side, across * side)]
    column = np.broadcast_to(newline, (page.shape[0], 1, hidden))
    return np.concatenate([features[0], np.concatenate([page, column], axis=1).reshape(-1, hidden)])
