"""What a file says of its picture before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pulse_edge.page.limits import MAX_COUNTED_PAGES


@dataclass(frozen=True)
class Container:
    """A checked file: its picture alone, and what was read beside it.

    Attributes:
        format: PNG, JPEG, TIFF, BMP or WEBP.
        size: (width, height) in pixels, as stored.
        picture: makes the file that Pillow gets: without metadata, with the first page alone.
        orientation: EXIF's, 1 to 8.
        pages: pages or frames of the file; the first is read.
        notes: what was left out or could not be read, a sentence each.
        probe: makes `picture` with bytes that a decoder skips where the picture is complete; None
            if the format does not need it.
        pixel_bytes: what decoding takes at its peak beside the picture, in bytes for each pixel.
        strips: makes the JPEG files that the picture consists of, in formats that hold such.
        transparent: the colour that stands for transparent pixels, as Pillow writes it.
        bits: of a sample, where they are more than 8.
        signed: whether samples are signed numbers.
        inverted: whether 0 is white in samples of more than 8 bits.
    """

    format: str
    size: tuple[int, int]
    picture: Callable[[], bytes]
    orientation: int = 1
    pages: int = 1
    notes: tuple[str, ...] = ()
    probe: Callable[[], bytes] | None = None
    pixel_bytes: float = 0.0
    strips: Callable[[], Iterable[Container]] = tuple
    transparent: int | tuple[int, int, int] | None = None
    bits: int = 16
    signed: bool = False
    inverted: bool = False


def page_note(pages: int, page: int = 1) -> tuple[str, ...]:
    """The sentence that only one of several pages was read, if there are several.

    Args:
        pages: of the file.
        page: number of the one that was read.
    """
    if pages < 2:
        return ()
    more = " or more" if pages >= MAX_COUNTED_PAGES else ""
    return (f"Page {page:,} of {pages:,}{more} in the file was read.",)
