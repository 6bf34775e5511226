"""Text as coverage of pixels: fonts, what they lack, and where lines break.

Pillow's Aileron knows little more than ASCII. Text that it cannot write is set in DejaVu Sans,
which ships with the package: Latin, Greek, Cyrillic, Hebrew, Arabic and others, so that the same
text has the same letters on every machine.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from pulse_edge.assets import HEADER_FONT
from pulse_edge.errors import ParameterError

REPLACEMENT = "\ufffd"  # stands for each character that no font here has
LINE_PITCH = 1.3  # distance between base lines, in sizes of the letters
_RIGHT_TO_LEFT = ("R", "AL", "AN")  # bidirectional classes of Unicode
_ABSENT = "\U0010fffe"  # no font has a glyph for it


class Glyphs(NamedTuple):
    """A line of text: its coverage [height, width], and where that lies from the text's origin."""

    cover: NDArray[np.uint8]
    left: int
    top: int


def header_text(text: str) -> str:
    """A header as it is written: composed letters, spaces for tabs, `REPLACEMENT` for the rest.

    Args:
        text: of any characters. Line breaks stay.

    Raises:
        ParameterError: it holds right-to-left letters, and Pillow cannot order them here.
    """
    composed = unicodedata.normalize("NFC", text.replace("\t", "    "))
    lines = composed.splitlines()
    if any(_is_right_to_left(line) for line in lines) and not features.check_feature("raqm"):
        raise ParameterError(
            "the header holds right-to-left letters, which Pillow orders by Raqm and FriBiDi, and "
            "they are not installed; install FriBiDi, or write the header in other letters"
        )
    return "\n".join("".join(_writable(letter) for letter in line) for line in lines)


def header_notes(text: str | None) -> tuple[str, ...]:
    """What to say of a header whose characters no font here has: nothing, or a sentence."""
    if text is None:
        return ()
    composed = unicodedata.normalize("NFC", text.replace("\t", " "))
    characters = dict.fromkeys("".join(composed.splitlines()))
    lost = [letter for letter in characters if _writable(letter) != letter]
    if not lost:
        return ()
    names = ", ".join(_letter_shown(letter) for letter in lost[:8])
    more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
    return (f"The header's fonts lack {names}{more}; the page shows {REPLACEMENT} instead.",)


def wrap_lines(text: str, size: float, width: float) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces if there are any.

    Args:
        text: as `header_text` returns it.
        size: of the letters, pixels.
        width: of the longest line, pixels.
    """
    font = letter_font(size, plain=is_plain(text))
    lines: list[str] = []
    for line in text.splitlines():
        lines += _wrap(line, font, width)
    return lines


@lru_cache(maxsize=256)
def glyphs_of(line: str, size: float, plain: bool = True) -> Glyphs:
    """A line of text.

    Args:
        line: without line breaks.
        size: of the letters, pixels.
        plain: see `letter_font`.
    """
    font = letter_font(size, plain)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(line, anchor="ls"))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), line, fill=255, font=font, anchor="ls")
    return Glyphs(np.asarray(image), left, top)


@lru_cache(maxsize=16)
def letter_font(size: float, plain: bool = True) -> ImageFont.FreeTypeFont:
    """A font, the same on every machine.

    Args:
        size: of the letters, pixels.
        plain: Aileron Regular, which is part of Pillow; else DejaVu Sans, which is part of this
            package.
    """
    if not plain:
        return ImageFont.truetype(str(HEADER_FONT), size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # what Pillow returns whenever a size is given
    return font


def is_plain(text: str) -> bool:
    """Whether Aileron has all characters of a text."""
    return all(_has_glyph(letter, plain=True) for letter in set("".join(text.splitlines())))


def _wrap(line: str, font: ImageFont.FreeTypeFont, width: float) -> Iterable[str]:
    pieces = []
    while font.getlength(line) > width and len(line) > 1:
        fit = bisect_right(range(2, len(line)), width, key=lambda n: font.getlength(line[:n])) + 1
        cut = line.rfind(" ", 1, fit + 1)
        cut = fit if cut < 0 else cut
        pieces.append(line[:cut])
        line = line[cut:].lstrip()
    return [*pieces, line]


def _writable(letter: str) -> str:
    """The letter, or what stands for it."""
    category = unicodedata.category(letter)
    if category == "Cf":  # joiners and marks of direction have no ink of their own
        return letter
    if category in ("Cc", "Cs", "Cn", "Co"):
        return REPLACEMENT
    return letter if _has_glyph(letter, True) or _has_glyph(letter, False) else REPLACEMENT


@lru_cache(maxsize=4096)
def _has_glyph(letter: str, plain: bool) -> bool:
    """Whether a font draws a letter otherwise than one that it lacks."""
    font = letter_font(20, plain)
    mask, absent = font.getmask(letter), font.getmask(_ABSENT)
    return mask.size != absent.size or bytes(mask) != bytes(absent)


def _is_right_to_left(line: str) -> bool:
    return any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in line)


def _letter_shown(letter: str) -> str:
    code = f"U+{ord(letter):04X}"
    return f"{letter} ({code})" if letter.isprintable() else code
