"""PDF files that were damaged. PDF has no checksums: a damaged page is refused, or is some page.

Some of the files are bombs to begin with: pages that would take minutes or gigabytes.
"""

from __future__ import annotations

import random
import resource
from pathlib import Path

from pulse_edge.errors import RecordingError
from pulse_edge.page.source import Page, read_page

from fuzz.bytes_ import DAMAGE
from fuzz.campaign import ESCAPE, HANG, Counts, Finding, attempt
from support.pdf_files import Sheet, ecg_sheet, flat_picture, pdf_file, scan_sheet, text_sheet

SECONDS = 2.0  # of the processor, for everything that one file makes this process start
BOMBS = 8  # one file in so many


class Pdfs:
    """The campaign."""

    def __init__(self, _: Path) -> None:
        picture = read_page(pdf_file([ecg_sheet()])).image
        self._seeds = [
            pdf_file([ecg_sheet()]),
            pdf_file([text_sheet(), ecg_sheet(rotate=90)]),
            pdf_file([scan_sheet(picture)]),
        ]
        lines = b"0 0 m 700 500 l S 3 w 1 0 0 RG "
        image = b"q 396 0 0 306 0 0 cm /Im0 Do Q"
        self._bombs = [
            pdf_file([Sheet(lines * 300_000)]),
            pdf_file([Sheet(b"0 0 m " + b"700 500 l 0 3 l " * 150_000 + b"f*")]),
            pdf_file([ecg_sheet(), Sheet(b"0 0 900 900 re f " * 200_000)]),
            pdf_file([Sheet(lines * 3_000_000)]),
            pdf_file([Sheet(image, stream=flat_picture(30_000, 30_000))]),
        ]

    def case(self, number: int, rng: random.Random) -> Counts:
        seeds = self._seeds if number % BOMBS else self._bombs
        data = rng.choice(seeds)
        kind = rng.choice(list(DAMAGE))
        before = _processor_seconds()
        found = attempt(lambda: read_page(DAMAGE[kind](data, rng)))
        seconds = _processor_seconds() - before
        if seconds > SECONDS:
            raise Finding(HANG, f"{kind}: {seconds:.1f} s of the processor")
        if isinstance(found, Page):
            return {"a page": 1}
        # Damage to the mark itself makes a file of no kind, which is refused as an image.
        if not isinstance(found, RecordingError) and "not an image" not in str(found):
            raise Finding(ESCAPE, f"{kind}: {type(found).__name__} {found}")
        return {"refused": 1}


def _processor_seconds() -> float:
    """Of this process and of those that it has started."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
