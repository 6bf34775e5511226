"""PDF files that were damaged. PDF has no checksums: a damaged page is refused, or is some page."""

from __future__ import annotations

import random
from pathlib import Path

from pulse_edge.errors import RecordingError
from pulse_edge.page.source import Page, read_page

from fuzz.bytes_ import DAMAGE
from fuzz.campaign import ESCAPE, Counts, Finding, attempt
from support.pdf_files import ecg_sheet, pdf_file, scan_sheet, text_sheet


class Pdfs:
    """The campaign."""

    def __init__(self, _: Path) -> None:
        picture = read_page(pdf_file([ecg_sheet()])).image
        self._seeds = [
            pdf_file([ecg_sheet()]),
            pdf_file([text_sheet(), ecg_sheet(rotate=90)]),
            pdf_file([scan_sheet(picture)]),
        ]

    def case(self, number: int, rng: random.Random) -> Counts:
        data = self._seeds[number % len(self._seeds)]
        kind = rng.choice(list(DAMAGE))
        found = attempt(lambda: read_page(DAMAGE[kind](data, rng)))
        if isinstance(found, Page):
            return {"a page": 1}
        # Damage to the mark itself makes a file of no kind, which is refused as an image.
        if not isinstance(found, RecordingError) and "not an image" not in str(found):
            raise Finding(ESCAPE, f"{kind}: {type(found).__name__} {found}")
        return {"refused": 1}
