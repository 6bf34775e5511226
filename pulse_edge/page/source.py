"""An image file, pixels or a recording as a page: decoded, upright, RGB."""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import ImageError

Pixels = Image.Image | NDArray[np.generic]
ImageSource = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Pixels | Recording
)
MAX_PIXELS = 89_478_485  # Pillow's limit against decompression bombs: a quarter GiB of RGB
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
ORIENTATION_TAG = 0x0112  # EXIF


@dataclass(frozen=True, eq=False)
class PageInput:
    """An image as a caller handed it in: read from disk, not decoded.

    Exactly one of `pixels` and `data` is set.
    """

    name: str  # for messages
    pixels: Pixels | None = None
    data: bytes | None = None  # an encoded file
    notes: tuple[str, ...] = ()  # what was lost or changed on the way, said with the answer

    @property
    def data_sha256(self) -> str | None:
        """Digest of the encoded file; None for pixels."""
        return None if self.data is None else hashlib.sha256(self.data).hexdigest()

    def snapshot(self) -> PageInput:
        """The same input, which later changes to the caller's array do not reach."""
        if isinstance(self.pixels, np.ndarray):
            return replace(self, pixels=self.pixels.copy())
        return self


@dataclass(frozen=True)
class Page:
    """A decoded page: RGB, upright."""

    image: Image.Image
    sha256: str  # of size and RGB bytes, whatever file they came from
    source: str
    format: str
    orientation: int  # EXIF value that was applied; 1 when there was none
    decode_seconds: float
    notes: tuple[str, ...] = ()  # of its input, and what decoding changed

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size


def read_input(source: ImageSource) -> PageInput:
    """Read what a caller handed in, and draw it if it is a recording.

    Args:
        source: path, bytes or binary file object of an image; a PIL image; uint8 pixels [height,
            width] or [height, width, 1|3|4]; a `Recording`, or the path of one.

    Raises:
        ImageError: the source cannot be read, or is of another type.
        RecordingError: a recording that cannot be read or drawn.
    """
    if isinstance(source, Recording):
        return _drawn(source)
    if isinstance(source, Image.Image | np.ndarray):
        return PageInput(type(source).__name__, pixels=source)
    if isinstance(source, bytes | bytearray | memoryview):
        return PageInput(f"{len(source)} bytes", data=bytes(source))
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if hasattr(source, "read"):
        try:
            data = source.read()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise ImageError(f"the image's file object cannot be read ({error})") from None
        if not isinstance(data, bytes):
            raise ImageError("the image's file object returns text; open it in binary mode ('rb')")
        return PageInput(str(getattr(source, "name", "file object")), data=data)
    raise ImageError(
        "an image is a path, bytes, a binary file object, a PIL image, a numpy array or a "
        f"recording, not {type(source).__name__}"
    )


def _read_file(path: str | os.PathLike[str]) -> PageInput:
    from pulse_edge.ecg.readers.registry import is_recording, read_recording

    name = os.fspath(path)
    try:
        if is_recording(path):
            return _drawn(read_recording(path))
        return PageInput(name, data=Path(path).read_bytes())
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name}: cannot be read ({reason})") from None


def _drawn(recording: Recording) -> PageInput:
    from pulse_edge.ecg.drawing import draw_page

    name = recording.source or "recording"
    return PageInput(name, pixels=draw_page(recording), notes=recording.notes)


def decode_page(source: PageInput) -> Page:
    """Decode, turn upright by EXIF, and make RGB as `Image.convert` does: alpha is dropped.

    Raises:
        ImageError: not an image, truncated, empty, or larger than `MAX_PIXELS`.
    """
    name = source.name
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            # Pillow warns of large and damaged files; they pass the checks below, or raise.
            warnings.simplefilter("ignore")
            image = _open(source)
            width, height = image.size
            if width < 1 or height < 1:
                raise ImageError(f"{name}: the image is {width} x {height} pixels")
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{name}: {width} x {height} pixels, over the {MAX_PIXELS:,} accepted; "
                    "scale it down"
                )
            form = image.format or image.mode
            orientation = image.getexif().get(ORIENTATION_TAG, 1)
            # Pillow applies no other value.
            orientation = int(orientation) if orientation in range(1, 9) else 1
            rgb = (ImageOps.exif_transpose(image) or image).convert("RGB")
    except ImageError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise ImageError(f"{name}: not an image that can be read ({known})") from None
    except Image.DecompressionBombError:
        message = f"{name}: more than the {MAX_PIXELS:,} pixels accepted; scale it down"
        raise ImageError(message) from None
    except MemoryError:
        message = f"{name}: too large for this machine's memory; scale it down"
        raise ImageError(message) from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = f"{type(error).__name__}: {error}"
        raise ImageError(f"{name}: the image is damaged or truncated ({reason})") from None
    digest = hashlib.sha256(b"%d %d RGB " % rgb.size)
    digest.update(rgb.tobytes())
    seconds = time.perf_counter() - start
    return Page(rgb, digest.hexdigest(), name, form, orientation, seconds, source.notes)


def _open(source: PageInput) -> Image.Image:
    if source.data is not None:
        if not source.data:
            raise ImageError("the image is empty (0 bytes)")
        return Image.open(io.BytesIO(source.data), formats=FORMATS)
    if isinstance(source.pixels, Image.Image):
        return source.pixels
    array = np.asarray(source.pixels)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            "a numpy image is uint8 [height, width] or [height, width, 1|3|4], "
            f"not {array.dtype} {list(array.shape)}"
        )
    if 0 in array.shape:
        raise ImageError(f"the image has no pixels: {list(array.shape)}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)


def read_page(source: ImageSource) -> Page:
    """Source -> decoded page. Raises `ImageError`; see `read_input` for what a source may be."""
    return decode_page(read_input(source))
