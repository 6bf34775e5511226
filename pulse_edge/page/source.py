"""An image file, pixels or a recording as a page: decoded, upright, RGB."""

from __future__ import annotations

import copy
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.ecg.drawn import DrawnRecording
from pulse_edge.ecg.recording import Recording
from pulse_edge.errors import ImageError, RecordingError
from pulse_edge.guarded import open_regular, reason
from pulse_edge.page.bands import bands_of
from pulse_edge.page.limits import MAX_FILE_BYTES, check_file_size, check_page_size, read_limited
from pulse_edge.page.numbered import FilePage
from pulse_edge.page.orientation import ORIENTATION_TAG, legal_orientation, turn_upright
from pulse_edge.page.pdf import is_pdf, render_pdf
from pulse_edge.page.picture import decode_picture, read_container
from pulse_edge.page.samples import check_array, eight_bit_grey, image_of_array
from pulse_edge.page.transparency import AlphaRecord, without_alpha
from pulse_edge.params import ALPHA_MODES, AlphaMode

Pixels = Image.Image | NDArray[np.generic]
Unnumbered = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | Pixels
    | Recording
    | DrawnRecording
)
ImageSource = Unnumbered | FilePage


@dataclass(frozen=True, eq=False)
class PageInput:
    """An image as a caller handed it in: read from disk, not decoded.

    Exactly one of `pixels`, `data` and `undrawn` is set.
    """

    name: str  # for messages
    pixels: Pixels | None = None
    data: bytes | None = None  # an encoded file
    notes: tuple[str, ...] = ()  # what was lost or changed on the way, said with the answer
    page: int | None = None  # number of the page to read, from 1; None is the file's own choice
    undrawn: DrawnRecording | None = None  # drawn when the page is decoded

    @property
    def data_sha256(self) -> str | None:
        """Digest of the encoded file, and of the page's number if one was given.

        None for pixels.
        """
        if self.data is None:
            return None
        digest = hashlib.sha256(self.data)
        if self.page is not None:
            digest.update(b" page %d" % self.page)
        return digest.hexdigest()

    def snapshot(self) -> PageInput:
        """The same input, which later changes to the caller's array do not reach."""
        if isinstance(self.pixels, np.ndarray):
            return replace(self, pixels=self.pixels.copy())
        if self.undrawn is not None:
            return replace(self, undrawn=copy.deepcopy(self.undrawn))
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
    alpha: AlphaRecord = "none"  # what became of transparent pixels
    pages: int = 1  # pages or frames of the file, of which this is one
    recording: dict[str, Any] | None = None  # what is known of the recording that was drawn

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size

    @property
    def facts(self) -> dict[str, Any]:
        """What the provenance of an answer says of the page, ready for JSON."""
        return {
            "sha256": self.sha256,
            "width": self.size[0],
            "height": self.size[1],
            "format": self.format,
            "exif_orientation": self.orientation,
            "alpha": self.alpha,
            "pages": self.pages,
            "notes": list(self.notes),
        } | ({} if self.recording is None else {"recording": self.recording})


def read_input(source: ImageSource) -> PageInput:
    """Read what a caller handed in. A recording is drawn when the page is decoded.

    Args:
        source: path, bytes or binary file object of an image or a PDF; a PIL image; uint8 pixels
            [height, width] or [height, width, 1|3|4]; uint16 pixels [height, width]; a
            `Recording`, or the path of one; a `DrawnRecording`; a `FilePage`. A path names a
            regular file.

    Raises:
        ImageError: the source cannot be read, is too large, or is of another type.
        RecordingError: a recording that cannot be read or drawn.
    """
    if isinstance(source, FilePage):
        return _page_of_file(source)
    if isinstance(source, Recording):
        return _of_recording(DrawnRecording(source))
    if isinstance(source, DrawnRecording):
        return _of_recording(source)
    if isinstance(source, np.ndarray):
        check_array(source)
        check_page_size(source.shape[1], source.shape[0])
        return PageInput(type(source).__name__, pixels=source)
    if isinstance(source, Image.Image):
        return PageInput(type(source).__name__, pixels=source)
    if isinstance(source, bytes | bytearray | memoryview):
        size = memoryview(source).nbytes
        name = f"{size} bytes"
        with _named(name):
            check_file_size(size)
        return PageInput(name, data=bytes(source))
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if hasattr(source, "read"):
        return _read_object(source)
    raise ImageError(
        "an image is a path, bytes, a binary file object, a PIL image, a numpy array or a "
        f"recording, not {type(source).__name__}"
    )


def _page_of_file(source: FilePage) -> PageInput:
    read = read_input(source.image)
    if read.data is None:
        raise ImageError(f"{read.name}: one page, without a number; ask without --page")
    return replace(read, page=source.number)


def _read_object(source: BinaryIO) -> PageInput:
    name = str(getattr(source, "name", "file object"))
    try:
        return PageInput(name, data=read_limited(source))
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise ImageError(f"the image's file object cannot be read ({error})") from None


def _read_file(path: str | os.PathLike[str]) -> PageInput:
    from pulse_edge.ecg.readers.registry import HEAD, embedded_pdf, is_recording, read_opened

    name = os.fspath(path)
    try:
        with _named(name), open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            check_file_size(min(size, MAX_FILE_BYTES))  # a recording may be larger than an image
            head = file.read(HEAD)
            file.seek(0)
            if is_recording(path, head) and not is_pdf(head):
                document = embedded_pdf(file.read()) if size <= MAX_FILE_BYTES else None
                if document is not None:
                    return PageInput(name, data=document)
                file.seek(0)
                return _of_recording(DrawnRecording(read_opened(file, name)))
            check_file_size(size)
            return PageInput(name, data=read_limited(file))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(f"{name}: cannot be read ({reason(error)})") from None


def _of_recording(drawn: DrawnRecording) -> PageInput:
    recording = drawn.recording
    return PageInput(recording.source or "recording", notes=recording.notes, undrawn=drawn)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the name of the source before what is wrong with it, and make all of it one line."""
    try:
        yield
    except RecordingError:
        raise  # names its file itself
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to decode it; scale it down") from None


def decode_page(source: PageInput, alpha: AlphaMode = "white") -> Page:
    """Decode a page, reduce it to 8 bits, make it RGB, and turn it upright by EXIF.

    Of a file of several pages it is the one that `source` names, else the first picture, or the
    page of a PDF that looks most like an ECG.

    Args:
        source: from `read_input`.
        alpha: what becomes of transparent pixels: `white` composites them on white, `drop` shows
            the colours below them, as the authors' code does.

    Raises:
        ImageError: not an image, damaged, truncated, empty, larger than the limits of
            `page/limits.py`, or of a kind that is not read.
    """
    if alpha not in ALPHA_MODES:
        raise ImageError(f"alpha {alpha!r} is not one of {', '.join(ALPHA_MODES)}")
    start = time.perf_counter()
    with _named(source.name):
        try:
            picture = _decode(source)
            image, record, clear_notes = without_alpha(picture.image, alpha)
            digest = _page_digest(image)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ImageError(f"the image is damaged or truncated ({reason})") from None
    return Page(
        image,
        digest,
        source.name,
        picture.format,
        picture.orientation,
        time.perf_counter() - start,
        (*source.notes, *picture.notes, *clear_notes),
        record,
        picture.pages,
        source.undrawn.facts if source.undrawn else None,
    )


class _Picture(NamedTuple):
    """A decoded source: upright, in one of Pillow's 8-bit modes."""

    image: Image.Image
    format: str
    orientation: int
    pages: int
    notes: tuple[str, ...]


def _decode(source: PageInput) -> _Picture:
    if source.data is not None and is_pdf(source.data):
        page = render_pdf(source.data, source.name, source.page)
        return _Picture(page.image, "PDF", 1, page.pages, page.notes)
    if source.data is not None:
        container = read_container(source.data, source.page or 1)
        image, notes = decode_picture(container)
        return _Picture(
            turn_upright(image, container.orientation),
            container.format,
            container.orientation,
            container.pages,
            (*container.notes, *notes),
        )
    if source.undrawn is not None:
        drawn = source.undrawn
        notes = tuple(note for note in drawn.notes if note not in source.notes)
        return _Picture(drawn.draw(), drawn.format, 1, 1, notes)
    pixels = source.pixels
    if isinstance(pixels, Image.Image):
        return _decode_pillow(pixels)
    image = image_of_array(np.asarray(pixels))
    mode = image.mode
    image, notes = eight_bit_grey(image)
    return _Picture(image, mode, 1, 1, notes)


def _decode_pillow(image: Image.Image) -> _Picture:
    """A PIL image, which may still lie in a file that its owner opened."""
    check_page_size(*image.size)
    orientation = _pillow_orientation(image)
    image.load()
    # Pillow turns TIFF pages itself while it loads them, and forgets the orientation then.
    left = _pillow_orientation(image)
    grey, notes = eight_bit_grey(image)
    form = getattr(image, "format", None) or image.mode
    upright = turn_upright(grey, left)
    owned = upright.copy() if upright is image else upright  # later changes do not reach the page
    return _Picture(owned, form, orientation, 1, notes)


def _pillow_orientation(image: Image.Image) -> int:
    """The orientation that Pillow finds; 1 where it cannot read EXIF."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return 1
    return legal_orientation(value) if isinstance(value, int) else 1


def _page_digest(image: Image.Image) -> str:
    digest = hashlib.sha256(b"%d %d RGB " % image.size)
    for band in bands_of(image):
        digest.update(band)
    return digest.hexdigest()


def read_page(source: ImageSource, alpha: AlphaMode = "white") -> Page:
    """`decode_page` of `read_input`, which say what a source and `alpha` may be.

    Raises:
        ImageError: the source cannot be read or decoded.
    """
    return decode_page(read_input(source), alpha)
