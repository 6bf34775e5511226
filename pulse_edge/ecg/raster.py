"""Strokes and letters as coverage of pixels."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pulse_edge.ecg.layout import PageStyle, page_cells
from pulse_edge.errors import ParameterError

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

CHUNK = 1 << 18  # candidate pixels at a time, so that the temporaries stay in cache


def stroke(ink: Bytes, segments: Floats, width: float) -> None:
    """Draw round-ended line segments, in place.

    A pixel's coverage follows from the distance d of its centre to the nearest segment:
    width / 2 + 0.5 - d, cut to 0..1. Segments of one trace therefore join without seams.

    Args:
        ink: coverage, uint8 [height, width], which only grows.
        segments: [n, 4] (x0, y0, x1, y1) in pixels.
        width: of the line, in pixels.
    """
    rows, columns = ink.shape
    radius = np.float32(width / 2 + 0.5)
    most = np.float32(min(1.0, width))
    x = segments[:, 0::2]
    y = segments[:, 1::2]
    left = np.clip(np.ceil(x.min(1) - radius - 0.5), 0, columns).astype(np.int32)
    right = np.clip(np.floor(x.max(1) + radius + 0.5), 0, columns).astype(np.int32)
    top = np.clip(np.ceil(y.min(1) - radius - 0.5), 0, rows).astype(np.int32)
    bottom = np.clip(np.floor(y.max(1) + radius + 0.5), 0, rows).astype(np.int32)
    across = right - left
    count = across * (bottom - top)
    delta = segments[:, 2:] - segments[:, :2]
    inverse = 1 / np.maximum((delta**2).sum(1), np.float32(1e-12))
    flat = ink.reshape(-1)
    cuts = np.flatnonzero(np.diff(np.cumsum(count) // CHUNK)) + 1
    for part in np.split(np.arange(len(count)), cuts):
        number = count[part]
        at = np.repeat(part, number)  # the segment that each candidate pixel belongs to
        nth = np.arange(len(at)) - np.repeat(np.cumsum(number) - number, number)
        row, column = np.divmod(nth.astype(np.int32), across[at])
        row, column = row + top[at], column + left[at]
        px = column.astype(np.float32) + np.float32(0.5) - segments[at, 0]
        py = row.astype(np.float32) + np.float32(0.5) - segments[at, 1]
        dx, dy = delta[at, 0], delta[at, 1]
        along = np.clip((px * dx + py * dy) * inverse[at], 0, 1)
        distance = np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2)
        cover = np.clip(radius - distance, 0, most) * np.float32(255) + np.float32(0.5)
        np.maximum.at(flat, row * columns + column, cover.astype(np.uint8))


def write_texts(ink: Bytes, style: PageStyle, missing: tuple[str, ...], header: str | None) -> None:
    """Write lead names, scales and header, in place.

    Args:
        ink: coverage, uint8 [height, width].
        style: of the page.
        missing: leads that the recording lacks.
        header: lines of text for the upper left corner.

    Raises:
        ParameterError: the header does not fit over the first row of leads.
    """
    mm = style.px_per_mm
    size = style.px(style.text_pt)
    cells = page_cells(style)
    height, width = ink.shape

    def text(x: float, base_line: float, line: str) -> None:
        glyphs, left, top = _glyphs(line, size)
        left += round(x)
        top += round(base_line)
        glyphs = glyphs[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
        spot = ink[max(0, top) :, max(0, left) :][: glyphs.shape[0], : glyphs.shape[1]]
        np.maximum(spot, glyphs, out=spot)

    if style.show_names:
        for cell in cells:
            text(cell.x, cell.y - style.label_mm * mm, cell.lead)
    if style.show_scale:
        text(50 * mm, height - 5 * mm, f"{style.speed:g}mm/s")  # [kit]
        text(100 * mm, height - 5 * mm, f"{style.gain:g}mm/mV")  # [kit]
    if missing:
        text(150 * mm, height - 5 * mm, "not recorded: " + " ".join(missing))
    lines: list[str] = []
    for line in (header or "").splitlines():
        lines += _wrap(line, size, width - 10 * mm)
    pitch = 1.3 * size
    room = int((cells[0].y - 5 * mm) / pitch)
    if len(lines) > room:
        raise ParameterError(
            f"the header takes {len(lines)} lines, the page has room for {room}; shorten it"
        )
    for number, line in enumerate(lines, 1):
        text(5 * mm, number * pitch, line)


def _wrap(line: str, size: float, width: float) -> list[str]:
    """`line` in pieces of at most `width` pixels, broken at spaces if there are any."""
    font = _font(size)
    pieces = []
    while font.getlength(line) > width and len(line) > 1:
        fit = bisect_right(range(2, len(line)), width, key=lambda n: font.getlength(line[:n])) + 1
        cut = line.rfind(" ", 1, fit + 1)
        cut = fit if cut < 0 else cut
        pieces.append(line[:cut])
        line = line[cut:].lstrip()
    return [*pieces, line]


@lru_cache(maxsize=256)
def _glyphs(line: str, size: float) -> tuple[Bytes, int, int]:
    """(coverage of a line of text, uint8 [height, width]; left, top of it from the text's
    origin)."""
    left, top, right, bottom = (round(edge) for edge in _font(size).getbbox(line, anchor="ls"))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), line, fill=255, font=_font(size), anchor="ls")
    return np.asarray(image), left, top


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont:
    """Aileron Regular, which is part of Pillow: the same glyphs on every machine."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what Pillow returns whenever a size is given
    return font
