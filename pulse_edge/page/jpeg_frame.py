"""The frame of a JPEG and its scans: what a picture consists of (T.81, annex B)."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from pulse_edge.errors import ImageError

_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_UNREAD = {0xC3: "lossless", 0xC9: "arithmetic coding", 0xCA: "arithmetic coding"}
_COEFFICIENTS = 64  # of an 8 x 8 block


class Component(NamedTuple):
    """A colour component: its number, and its samples across and down for each unit."""

    number: int
    across: int
    down: int


class Scan(NamedTuple):
    """A scan: some coefficients of some components.

    Attributes:
        components: their numbers.
        first: the first coefficient of a block.
        last: the last one.
        missing_bits: low bits of the coefficients that later scans refine.
        units: coded units, which restart intervals count.
    """

    components: tuple[int, ...]
    first: int
    last: int
    missing_bits: int
    units: int


@dataclass(frozen=True)
class Frame:
    """A picture's size and components."""

    width: int
    height: int
    progressive: bool
    components: tuple[Component, ...]

    @property
    def coefficient_bytes(self) -> float:
        """Bytes for each pixel that libjpeg keeps of a picture of several scans."""
        blocks = sum(component.across * component.down for component in self.components)
        return 2 * blocks / (self._across * self._down)

    @property
    def _across(self) -> int:
        return max(component.across for component in self.components)

    @property
    def _down(self) -> int:
        return max(component.down for component in self.components)

    def units(self, numbers: tuple[int, ...]) -> int:
        """Coded units of a scan of these components (T.81, A.2)."""
        if len(numbers) > 1:
            across, down = 8 * self._across, 8 * self._down
            return -(-self.width // across) * -(-self.height // down)
        component = next(part for part in self.components if part.number == numbers[0])
        width = -(-self.width * component.across // self._across)
        height = -(-self.height * component.down // self._down)
        return -(-width // 8) * -(-height // 8)

    def check_complete(self, scans: list[Scan]) -> None:
        """Refuse a picture that lacks a component, or scans that refine one.

        Raises:
            ImageError: it does.
        """
        missing: dict[int, list[int | None]] = defaultdict(lambda: [None] * _COEFFICIENTS)
        for scan in scans:
            for number in scan.components:
                for index in range(scan.first, scan.last + 1):
                    missing[number][index] = scan.missing_bits
        for component in self.components:
            if any(bits != 0 for bits in missing[component.number]):
                raise ImageError(
                    "the image is truncated: the JPEG lacks scans that complete its picture"
                )


def read_frame(marker: int, body: bytes) -> Frame:
    """The frame header's content.

    Args:
        marker: the second byte of its marker.
        body: what follows its length.

    Raises:
        ImageError: it is damaged, or of a kind that is not read.
    """
    if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        kind = _UNREAD.get(marker, f"frame type {marker - _BASELINE}")
        raise ImageError(f"a JPEG of an unusual kind ({kind}); save it as baseline JPEG or PNG")
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise ImageError("the image is damaged: the frame header of the JPEG is too short")
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    if bits != 8:
        raise ImageError(f"a JPEG of {bits} bits a sample, not 8; save it with 8 bits, or as PNG")
    if count not in (1, 3, 4):
        raise ImageError(f"a JPEG of {count} components, not 1, 3 or 4; save it as PNG")
    components = []
    for place in range(6, 6 + 3 * count, 3):
        number, sampling = body[place], body[place + 1]
        across, down = sampling >> 4, sampling & 15
        if across not in range(1, 5) or down not in range(1, 5):
            raise ImageError("the image is damaged: the JPEG samples a component impossibly")
        components.append(Component(number, across, down))
    if not width or not height:
        raise ImageError(f"a JPEG of {width} x {height} pixels by its header; save it again")
    return Frame(width, height, marker == _PROGRESSIVE, tuple(components))


def read_scan(body: bytes, frame: Frame) -> Scan:
    """The scan header's content.

    Args:
        body: what follows its length.
        frame: of the picture.

    Raises:
        ImageError: it is damaged, or names a component that the frame does not.
    """
    count = body[0] if body else 0
    if not 1 <= count <= 4 or len(body) < 4 + 2 * count:
        raise ImageError("the image is damaged: a scan header of the JPEG is too short")
    numbers = tuple(body[1 : 1 + 2 * count : 2])
    if not set(numbers) <= {component.number for component in frame.components}:
        raise ImageError("the image is damaged: a scan of the JPEG names an unknown component")
    first, last, bits = body[1 + 2 * count : 4 + 2 * count]
    if not frame.progressive:
        first, last, bits = 0, _COEFFICIENTS - 1, 0
    if not first <= last < _COEFFICIENTS:
        raise ImageError("the image is damaged: a scan of the JPEG names unknown coefficients")
    return Scan(numbers, first, last, bits & 15, frame.units(numbers))
