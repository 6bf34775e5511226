"""The process that renders a PDF. It is a program of its own: a hostile file may hang the library.

    python pdf_process.py survey | PAGE

The PDF comes on stdin. A line of JSON goes to stdout, then the pixels that it describes. Imports
nothing of this package, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

MEMORY = 768 << 20  # bytes of address space
# Seconds of the processor once the library is there. Neither reading a page's operators nor drawing
# one of them can be interrupted, so the process ends. Together they leave 0.4 s of the 2 s that a
# hostile file may take. A page takes 0.03 s, and a scan of 600 dpi 0.4 s.
SURVEY_SECONDS = 0.6
PAGE_SECONDS = 1.0
ENOUGH_SECONDS = 0.3  # after which a survey looks at no further page
BACKSTOP = 3  # seconds, where a system counts whole ones only
DPI = 200  # of the page that the model gets
SURVEY_DPI = 72
SURVEYED = 32  # pages; an ECG is on the first ones
MAX_PIXELS = 36_000_000
MAX_PICTURE = 100_000_000  # pixels of a picture in a page; an A4 sheet at 600 dpi has 34.8 million
MAX_DEPTH = 8  # of forms in each other, in which pictures are looked for
POINTS = 72  # of an inch
WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD


class PdfRefusal(Exception):
    """What is wrong with the file, in one word."""


def main() -> None:
    """Answer one request."""
    _limit()
    try:
        header, pixels = answer_request(sys.argv[1], sys.stdin.buffer.read())
    except PdfRefusal as refusal:
        header, pixels = {"error": str(refusal)}, b""
    except MemoryError:
        header, pixels = {"error": "memory"}, b""
    sys.stdout.buffer.write(json.dumps(header).encode() + b"\n" + pixels)


def _limit() -> None:
    """Bound this process. Windows has no such limits; the parent's time limit remains."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, BACKSTOP)):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def end_after(seconds: float) -> None:
    """End this process when it has run for so long, from now on.

    Args:
        seconds: of the processor.
    """
    if hasattr(signal, "setitimer"):  # Windows has none; the parent's time limit remains
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer_request(request: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    """(header, pixels) of a request.

    Args:
        request: "survey", for a small picture of each page, or the page itself if there is one;
            or the number of a page.
        data: the PDF.

    Raises:
        PdfRefusal: the file cannot be read, or has no such page.
    """
    import pypdfium2

    end_after(SURVEY_SECONDS if request == "survey" else PAGE_SECONDS)
    try:
        document = pypdfium2.PdfDocument(data)
        count = len(document)
    except pypdfium2.PdfiumError as error:
        encrypted = getattr(error, "err_code", None) == WRONG_PASSWORD
        raise PdfRefusal("password" if encrypted else "damaged") from None
    if request == "survey" and count > 1:
        return _survey(document, count)
    number = 1 if request == "survey" else int(request)
    if not 1 <= number <= count:
        return {"pages": count, "pictures": []}, b""
    end_after(PAGE_SECONDS)
    size, pixels = _render_sheet(document, number - 1, DPI)
    return {"pages": count, "pictures": [size]}, pixels


def _survey(document: Any, count: int) -> tuple[dict[str, Any], bytes]:
    """Small pictures of the first pages: as many as there is time for."""
    begun = time.process_time()
    pictures = []
    pixels = []
    for number in range(min(count, SURVEYED)):
        try:
            size, part = _render_sheet(document, number, SURVEY_DPI)
        except PdfRefusal:  # of a page that is perhaps not the one
            size, part = (1, 1), b"\xff\xff\xff"
        pictures.append(size)
        pixels.append(part)
        if time.process_time() - begun > ENOUGH_SECONDS:
            break
    return {"pages": count, "pictures": pictures}, b"".join(pixels)


def _render_sheet(document: Any, index: int, dpi: int) -> tuple[tuple[int, int], bytes]:
    """((width, height), RGB bytes) of a page, turned as the file says."""
    import pypdfium2

    try:
        page = document[index]
        width, height = page.get_size()
        area = width * height * (DPI / POINTS) ** 2
        if not 1 <= area <= MAX_PIXELS:
            raise PdfRefusal("size")
        _check_pictures(page)
        bitmap = page.render(
            scale=dpi / POINTS,
            rev_byteorder=True,
            force_bitmap_format=_rgb_format(),
            may_draw_forms=False,
        )
    except pypdfium2.PdfiumError:
        raise PdfRefusal("damaged") from None
    row = 3 * bitmap.width
    stored = bytes(bitmap.buffer)
    rows = (stored[place : place + row] for place in range(0, len(stored), bitmap.stride))
    pixels = stored if bitmap.stride == row else b"".join(rows)
    size = (bitmap.width, bitmap.height)
    bitmap.close()
    page.close()
    return size, pixels


def _check_pictures(page: Any) -> None:
    """Refuse pictures that would be inflated to gigabytes, by the size that they state."""
    import pypdfium2.raw

    kinds = [pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    for picture in page.get_objects(filter=kinds, max_depth=MAX_DEPTH):
        width, height = picture.get_px_size()
        if width * height > MAX_PICTURE:
            raise PdfRefusal("memory")


def _rgb_format() -> int:
    import pypdfium2.raw

    return int(pypdfium2.raw.FPDFBitmap_BGR)


if __name__ == "__main__":
    main()
