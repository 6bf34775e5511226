"""Image files that were damaged.

A PNG has checksums: whatever changes in it, the page is the same or it is refused, unless the
checksums were made to fit. A file that was cut off is refused in every format, unless only its end
mark is missing. Elsewhere a change may make another picture, because it then is one.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pulse_edge.errors import PulseEdgeError
from pulse_edge.page.source import Page, read_page

from fuzz.bytes_ import DAMAGE
from fuzz.campaign import SILENT, Counts, Finding, attempt

SIZES = ((61, 40), (17, 96), (128, 128))
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "PNG": ({}, {"compress_level": 0}),
    "JPEG": ({}, {"progressive": True}, {"quality": 30, "restart_marker_blocks": 2}),
    "TIFF": ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}),
    "BMP": ({},),
    "WEBP": ({"lossless": True}, {"quality": 60}),
}
WHOLE = {"PNG", "JPEG", "TIFF", "BMP", "WEBP"}  # formats in which a file that is cut off is refused
Seed = tuple[str, bytes, Page]


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A grid with a trace and some noise, so that every part of it matters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.full((height, width, 3), 255, np.uint8)
    rgb[(x % 8 == 0) | (y % 8 == 0)] = (255, 190, 190)
    rgb[np.abs(y - height / 2 - height / 3 * np.sin(x / 5)) < 1.5] = 0
    rgb[-4:] = rng.integers(0, 256, (4, width, 3), np.uint8)  # the last rows are not plain
    return Image.fromarray(rgb)


def seeds() -> Iterator[tuple[str, bytes]]:
    """(format, file) of small images in every mode, deterministic."""
    for number, size in enumerate(SIZES):
        page = picture(*size, number)
        for form, modes in MODES.items():
            for mode in modes:
                image = _in_mode(page, mode)
                for options in OPTIONS[form]:
                    file = io.BytesIO()
                    image.save(file, form, **options)
                    yield form, file.getvalue()


def _in_mode(page: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(page.convert("L")).astype(np.uint16) * 257)
    return page.convert(mode)


class Images:
    """The campaign."""

    def __init__(self, _folder: Path) -> None:
        self._seeds: list[Seed] = [(form, data, read_page(data)) for form, data in seeds()]

    def case(self, number: int, rng: random.Random) -> Counts:
        form, data, sound = self._seeds[number % len(self._seeds)]
        kinds = [*DAMAGE, "chunks"] if form == "PNG" else list(DAMAGE)
        kind = rng.choice(kinds)
        exact = kind == "truncate" or form == "PNG"
        if kind == "chunks":
            changed, exact = change_chunk(data, rng)
        else:
            changed = DAMAGE[kind](data, rng)
        page = attempt(lambda: read_page(changed))
        if isinstance(page, PulseEdgeError):
            return {f"{form} refused": 1}
        if page.image.tobytes() == sound.image.tobytes() and page.size == sound.size:
            return {f"{form} the same": 1}
        if exact:
            raise Finding(SILENT, f"{form}, {kind}: another picture, {len(changed)} bytes")
        return {f"{form} another": 1}


def change_chunk(data: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """A PNG with one chunk changed, and whether it must still be refused or the same.

    Whatever the chunk's checksum says, IDAT has one of its own inside. Other chunks may change
    what the picture is.
    """
    chunks = list(_chunks(data))
    at = rng.randrange(len(chunks))
    name, content = chunks[at]
    match rng.randrange(4):
        case 0:
            del chunks[at]
        case 1:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[at])
        case 2:
            other = rng.randrange(len(chunks))
            chunks[at], chunks[other] = chunks[other], chunks[at]
        case 3 if content:
            damage = rng.choice(list(DAMAGE.values()))
            chunks[at] = (name, damage(content, rng))
    return data[:8] + b"".join(_chunk(*chunk) for chunk in chunks), name == b"IDAT"


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
