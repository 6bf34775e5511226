"""An image file, or pixels, as a page: decoded, upright, RGB."""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_edge.errors import ImageError

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.generic]
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
