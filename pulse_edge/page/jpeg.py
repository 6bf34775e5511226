"""JPEG files: scans counted and compared with the frame, metadata set aside.

libjpeg paints missing rows grey, and Pillow keeps its warning to itself. `read_jpeg` therefore
writes the file a second time, with bytes behind each scan that a decoder skips once a scan is
complete and decodes as picture where it is not. If both files give one picture, none of it is
missing. JPEG holds no checksums: other damage shows in the picture alone.
"""

from __future__ import annotations

import re
import struct
from itertools import count, islice

from pulse_edge.errors import ImageError
from pulse_edge.page.container import Container, page_note
from pulse_edge.page.jpeg_frame import Frame, Scan, read_frame, read_scan
from pulse_edge.page.limits import MAX_COUNTED_PAGES, MAX_SCANS, check_page_size, check_pieces
from pulse_edge.page.orientation import read_orientation
from pulse_edge.page.tiff_directory import read_directory, read_tiff_header

JPEG_START = b"\xff\xd8\xff"
_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # not tables of Huffman and arithmetic codes
_RESTARTS = range(0xD0, 0xD8)
_TABLES = {0xC4, 0xDB, _DRI}
# A marker that ends a scan's data: neither a stuffed 0xFF nor a restart.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ANY_RESTART = re.compile(rb"\xff[\xd0-\xd7]")  # ten times as fast as `_RESTART`
# Any number of 0xFF may stand before a marker. Each run of them is tried once.
_RESTART = re.compile(rb"(?<!\xff)\xff+[\xd0-\xd7]")
# Random bytes without 0xFF: as picture data they are noise.
_NOISE = bytes.fromhex(
    "5a93c4170ee86b2d91f03c7a4d86b25f1be9742ac80d63976ef41538a1cc5072"
    "9e04d7631f8ab94d26f57ac03b91e85c147da2664fd9308b72c51ee7ab049d36"
)
_RESTART_NOISE = _NOISE[:8]
_MPF_IMAGES = 0xB001


class _Jpeg:
    """One JPEG picture, read marker by marker."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.frame: Frame | None = None
        self.scans: list[Scan] = []
        self._parts: list[bytes | memoryview] = [b"\xff\xd8"]
        self._coded: set[int] = set()  # which parts are the data of a scan
        self.exif = b""
        self.xmp = b""
        self.listed = 1  # pictures that a multi-picture index lists
        self.adobe = False
        self.end = 0  # offset behind the end marker
        self._restart_interval = 0
        self._read()

    def _read(self) -> None:
        place = 2
        for segments in count():
            check_pieces(segments, "segments of a JPEG")
            marker, place = self._next_marker(place)
            if marker == _EOI:
                break
            if marker == _SOI or marker == 0x01 or marker in _RESTARTS:
                continue  # these have no body
            body, after = self._segment(place)
            self._take(marker, body)
            if marker == _SOS:
                after = self._take_scan(body, after)
            place = after
        self.end = place
        self._parts.append(b"\xff\xd9")

    def picture(self) -> bytes:
        """The file without metadata."""
        return b"".join(self._parts)

    def probe(self) -> bytes:
        """`picture` with noise behind the data of each scan and of each restart interval."""
        parts: list[bytes | memoryview] = []
        for index, part in enumerate(self._parts):
            if index in self._coded:
                if _ANY_RESTART.search(part):
                    part = _RESTART.sub(lambda restart: _RESTART_NOISE + restart[0], part)
                parts += [part, _NOISE]
            else:
                parts.append(part)
        return b"".join(parts)

    def _next_marker(self, place: int) -> tuple[int, int]:
        """(marker, offset behind it) of the next marker. Bytes before it are skipped."""
        match = _SCAN_END.search(self.data, place)
        if match is None:
            raise ImageError("the image is truncated: the JPEG has no end marker")
        return self.data[match.start() + 1], match.end()

    def _segment(self, place: int) -> tuple[bytes, int]:
        length = int.from_bytes(self.data[place : place + 2], "big")
        if length < 2 or place + length > len(self.data):
            raise ImageError("the image is truncated: a segment of the JPEG ends beyond it")
        return self.data[place + 2 : place + length], place + length

    def _take(self, marker: int, body: bytes) -> None:
        if marker in _FRAMES:
            if self.frame is not None:
                raise ImageError("a JPEG of several frames; save it as baseline JPEG or PNG")
            self.frame = read_frame(marker, body)
        elif marker == _DRI and len(body) == 2:
            self._restart_interval = int.from_bytes(body, "big")
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            self.exif = self.exif or body
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            self.xmp = self.xmp or body
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            self.listed = _listed_pictures(body[4:])
        # JFIF and Adobe segments say what the components are.
        adobe = marker == 0xEE and body.startswith(b"Adobe")
        self.adobe |= adobe
        jfif = marker == 0xE0 and body.startswith(b"JFIF\0")
        if marker in _FRAMES | _TABLES | {_SOS} or adobe or jfif:
            self._parts.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body)

    def _take_scan(self, header: bytes, start: int) -> int:
        """Check a scan's restarts, and return where its data ends."""
        if self.frame is None:
            raise ImageError("the image is damaged: a scan of the JPEG comes before its frame")
        match = _SCAN_END.search(self.data, start)
        if match is None:
            raise ImageError("the image is truncated: the JPEG has no end marker")
        scan = read_scan(header, self.frame)
        self.scans.append(scan)
        if len(self.scans) > MAX_SCANS:
            raise ImageError(
                f"a JPEG of more than the {MAX_SCANS} scans accepted; save it as baseline JPEG "
                "or PNG"
            )
        end = match.start()
        coded = memoryview(self.data)[start:end]
        if coded and coded[-1] == 0xFF:  # these belong to the marker
            coded = coded[: len(bytes(coded).rstrip(b"\xff"))]
        _check_restarts(coded, scan, self._restart_interval)
        self._coded.add(len(self._parts))
        self._parts.append(coded)
        return end


def read_jpeg(data: bytes) -> Container:
    """Check a JPEG's structure and set its metadata aside.

    Raises:
        ImageError: it is truncated, too large, has too many scans, lacks some, or is of a kind
            that is not read.
    """
    jpeg = _Jpeg(data)
    frame = jpeg.frame
    if frame is None or not jpeg.scans:
        raise ImageError("the image is damaged: the JPEG has no picture")
    coefficients = frame.coefficient_bytes if len(jpeg.scans) > 1 or frame.progressive else 0
    check_page_size(frame.width, frame.height, max(8, 4 + coefficients))
    frame.check_complete(jpeg.scans)
    if len(frame.components) == 4 and not jpeg.adobe:
        raise ImageError("a CMYK JPEG that does not say whether its inks are inverted; save it RGB")
    orientation, notes = read_orientation(jpeg.exif, jpeg.xmp)
    pages = min(max(jpeg.listed, _following_pictures(data, jpeg.end)), MAX_COUNTED_PAGES)
    return Container(
        "JPEG",
        (frame.width, frame.height),
        jpeg.picture,
        orientation,
        pages,
        (*page_note(pages), *notes),
        probe=jpeg.probe,
        pixel_bytes=coefficients,
    )


def _check_restarts(coded: memoryview, scan: Scan, interval: int) -> None:
    """Refuse a scan in which restarts are missing, with the rows between them."""
    if not interval and not _ANY_RESTART.search(coded):
        return
    expected = (scan.units - 1) // interval if interval else 0
    # Some encoders write a last one behind the picture.
    found = islice(_RESTART.finditer(coded), expected + 2)
    numbers = [restart[0][-1] & 7 for restart in found]
    if numbers[:expected] != [number % 8 for number in range(expected)]:
        raise ImageError(
            f"the image is damaged: the JPEG lacks some of its {expected:,} restart markers, "
            "so rows are missing"
        )
    if len(numbers) > expected + 1:
        raise ImageError(f"the image is damaged: the JPEG has more than {expected:,} restarts")


def _listed_pictures(index: bytes) -> int:
    """How many pictures a multi-picture index lists (CIPA DC-007); 1 if it cannot be read."""
    try:
        flavour, offset = read_tiff_header(index)
        return max(1, read_directory(index, flavour, offset).integer(_MPF_IMAGES, 1))
    except ValueError:
        return 1


def _following_pictures(data: bytes, end: int) -> int:
    """1 and how many JPEG pictures follow the first directly."""
    pages = 1
    while data.startswith(JPEG_START, end) and pages < MAX_COUNTED_PAGES:
        pages += 1
        following = data.find(b"\xff\xd9", end)
        if following < 0:
            break
        end = following + 2
    return pages
