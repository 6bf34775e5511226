"""PDF files that tests make: pages with a grid and a trace, text, or a scanned picture."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from PIL import Image

MM = 72 / 25.4  # points


class Sheet(NamedTuple):
    """A page of a PDF.

    Attributes:
        content: operators of its content stream.
        width: points.
        height: points.
        rotate: degrees clockwise.
        picture: that the content may draw as /Im0.
        stream: head and packed bytes of such a picture, in its place.
    """

    content: bytes
    width: float = 396.0
    height: float = 306.0
    rotate: int = 0
    picture: Image.Image | None = None
    stream: tuple[bytes, bytes] | None = None


def ecg_sheet(width: float = 396.0, height: float = 306.0, rotate: int = 0) -> Sheet:
    """A grid of 1 and 5 mm with a trace."""
    lines = []
    for step, line, grey in ((MM, 0.3, 0.9), (5 * MM, 0.8, 0.75)):
        lines.append(f"{line} w 1 {grey} {grey} RG")
        x = 0.0
        while x < width:
            lines.append(f"{x:.3f} 0 m {x:.3f} {height} l S")
            x += step
        y = 0.0
        while y < height:
            lines.append(f"0 {y:.3f} m {width} {y:.3f} l S")
            y += step
    lines.append("1 w 0 0 0 RG 40 150 m")
    for beat in range(9):
        left = 40 + beat * 35
        lines.append(f"{left + 10} 150 l {left + 13} 190 l {left + 16} 145 l {left + 20} 150 l")
    lines.append("S")
    return Sheet("\n".join(lines).encode(), width, height, rotate)


def text_sheet(width: float = 306.0, height: float = 396.0) -> Sheet:
    """Lines that look like text, as of a report."""
    random = Random(0)
    words = []
    for line in range(24):
        left = 30
        while left < width - 60:
            length = random.randrange(8, 45)
            words.append(f"{left} {360 - 14 * line} {length} 6 re f")
            left += length + 5
    return Sheet(" ".join(words).encode(), width, height)


def scan_sheet(picture: Image.Image, width: float = 396.0, height: float = 306.0) -> Sheet:
    """A picture that fills the page."""
    return Sheet(f"q {width} 0 0 {height} 0 0 cm /Im0 Do Q".encode(), width, height, 0, picture)


def flat_picture(width: int, height: int) -> tuple[bytes, bytes]:
    """Head and packed bytes of a black picture of 1 bit, which packs a thousandfold."""
    head = (
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} "
        "/ColorSpace /DeviceGray /BitsPerComponent 1 "
    ).encode()
    packer = zlib.compressobj(9)
    row = bytes(-(-width // 8))
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return head, packed


def pdf_file(sheets: Sequence[Sheet], encrypted: bool = False, before: bytes = b"") -> bytes:
    """A PDF of pages.

    Args:
        sheets: in order.
        encrypted: whether it says that it is encrypted, with a password that nobody knows.
        before: bytes before the mark of PDF.
    """
    objects: list[bytes] = [b"", b""]  # the catalogue and the list of pages come last
    kids = []
    for sheet in sheets:
        resources = b"<< >>"
        if sheet.stream is not None:
            head, data = sheet.stream
            objects.append(
                b"<< %s/Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
                % (head, len(data), data)
            )
            resources = b"<< /XObject << /Im0 %d 0 R >> >>" % len(objects)
        elif sheet.picture is not None:
            picture = sheet.picture.convert("RGB")
            head = (
                f"/Type /XObject /Subtype /Image /Width {picture.width} /Height {picture.height} "
                "/ColorSpace /DeviceRGB /BitsPerComponent 8 "
            ).encode()
            objects.append(_stream(picture.tobytes(), head))
            resources = b"<< /XObject << /Im0 %d 0 R >> >>" % len(objects)
        objects.append(_stream(sheet.content))
        stream = len(objects)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %f %f] /Rotate %d /Resources %s "
            b"/Contents %d 0 R >>" % (sheet.width, sheet.height, sheet.rotate, resources, stream)
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[0] = b"<< /Type /Catalog /Pages 2 0 R >>"
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(kids), b" ".join(kids))
    trailer = b"/Root 1 0 R"
    if encrypted:
        secret = b"<" + b"5a" * 32 + b">"
        objects.append(
            b"<< /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O %s /U %s >>" % (secret, secret)
        )
        trailer += b" /Encrypt %d 0 R /ID [<00><00>]" % len(objects)
    return before + _assembled(objects, trailer)


def _stream(data: bytes, head: bytes = b"") -> bytes:
    packed = zlib.compress(data)
    return (
        b"<< %s/Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
        % (head, len(packed), packed)
    )  # fmt: skip


def _assembled(objects: Sequence[bytes], trailer: bytes) -> bytes:
    file = bytearray(b"%PDF-1.5\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    file += b"trailer << /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        trailer,
        table,
    )
    return bytes(file)
