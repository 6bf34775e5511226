"""PDF files: the page with the ECG, found and rendered in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_edge.errors import RecordingError
from pulse_edge.page.pdf_process import DPI, MAX_PIXELS, SURVEY_DPI

_MARK = b"%PDF-"
_MARK_WITHIN = 1024  # bytes from the beginning of a file (ISO 32000-1, annex H)
_SECONDS = 30.0  # a process that waits for the disk does not count its processor's seconds
_PROGRAM = Path(__file__).with_name("pdf_process.py")
# Distances of grid lines that count: 5 mm, and what squashed or enlarged pages make of it.
_PITCHES = (3.0, 11.0)  # mm
_GRID = 0.25  # autocorrelation; text has a pitch of lines, but none of columns
_LANDSCAPE = 0.1  # added to a landscape page's score: ECG pages lie, reports stand
_MILLIMETRES = 25.4  # of an inch
_REASONS = {
    "password": "the PDF is encrypted with a password; save it without one",
    "damaged": "the PDF is damaged; export it again",
    "memory": "the PDF takes too much memory; print it to a new PDF, or export an image",
    "size": f"a page of the PDF is empty, or over {MAX_PIXELS:,} pixels at {DPI} dpi; expected a "
    "sheet of paper",
}


class PdfPage(NamedTuple):
    """A rendered page.

    Attributes:
        image: RGB, turned as the file says.
        number: of the page, from 1.
        pages: of the file.
        notes: what to say of the choice, a sentence each.
    """

    image: Image.Image
    number: int
    pages: int
    notes: tuple[str, ...]


class _Rendering(NamedTuple):
    pages: int
    pictures: tuple[Image.Image, ...]


def is_pdf(head: bytes) -> bool:
    """Whether a file's first bytes are those of a PDF."""
    return _MARK in head[:_MARK_WITHIN]


def render_pdf(data: bytes, name: str, number: int | None = None) -> PdfPage:
    """The ECG page of a PDF at 200 dpi.

    Args:
        data: of the file.
        name: of the file, for messages.
        number: of the page, from 1; None finds the one that looks most like an ECG, by its grid and
            its shape.

    Raises:
        RecordingError: the file is damaged, encrypted or too large, has no such page, or no page of
            several looks like an ECG.
    """
    if find_spec("pypdfium2") is None:
        raise RecordingError(f"{name}: PDF needs pypdfium2: pip install 'pulse-edge[formats]'")
    notes: tuple[str, ...] = ()
    rendering = _ask_process("survey" if number is None else str(number), data, name)
    if number is None:
        number = 1
        if rendering.pages > 1:
            number, notes = _most_like_an_ecg(rendering, name)
            rendering = _ask_process(str(number), data, name)
    if not rendering.pictures:
        pages = "page 1" if rendering.pages == 1 else f"pages 1 to {rendering.pages:,}"
        raise RecordingError(f"{name}: no page {number:,}; the PDF has {pages}")
    if rendering.pages > 1:
        notes = (f"Page {number:,} of {rendering.pages:,} in the file was read.", *notes)
    return PdfPage(rendering.pictures[0], number, rendering.pages, notes)


def _ask_process(request: str, data: bytes, name: str) -> _Rendering:
    """What the process answers."""
    try:
        process = subprocess.run(
            [sys.executable, "-P", str(_PROGRAM), request],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RecordingError(f"{name}: the PDF took over {_SECONDS:g} s; export it again") from None
    except OSError as error:
        raise RecordingError(f"{name}: the PDF cannot be rendered ({error.strerror})") from None
    head, _, pixels = process.stdout.partition(b"\n")
    try:
        header = json.loads(head)
    except ValueError:  # it was ended, by its limits or by a fault of the library
        problem = "takes too long or too much memory, or is damaged; print it to a new PDF"
        if request == "survey":
            problem += ", or if it has several pages, give the ECG's, as --page 1"
        raise RecordingError(f"{name}: the PDF {problem}") from None
    if "error" in header:
        raise RecordingError(f"{name}: {_REASONS[header['error']]}")
    pictures = []
    for width, height in header["pictures"]:
        size = 3 * width * height
        pictures.append(Image.frombytes("RGB", (width, height), pixels[:size]))
        pixels = pixels[size:]
    return _Rendering(header["pages"], tuple(pictures))


def _most_like_an_ecg(survey: _Rendering, name: str) -> tuple[int, tuple[str, ...]]:
    """(number, notes): the page that looks most like an ECG."""
    grids = [grid_score(np.asarray(picture.convert("L"))) for picture in survey.pictures]
    scores = [
        grid + _LANDSCAPE * (picture.width > picture.height)
        for grid, picture in zip(grids, survey.pictures, strict=True)
    ]
    likely = [index for index, grid in enumerate(grids) if grid >= _GRID]
    if not likely:
        landscape = [i for i, each in enumerate(survey.pictures) if each.width > each.height]
        if len(landscape) != 1:
            raise RecordingError(
                f"{name}: none of its {survey.pages:,} pages has the grid of an ECG; give the "
                f"page, as --page 1 (1 to {survey.pages:,})"
            )
        return landscape[0] + 1, _unseen(survey)
    best = max(likely, key=lambda index: scores[index])
    others = [str(index + 1) for index in likely if index != best]
    also = (f"Pages with a grid as well: {', '.join(others)}.",) if others else ()
    return best + 1, (*also, *_unseen(survey))


def _unseen(survey: _Rendering) -> tuple[str, ...]:
    """The note that a survey has not looked at all pages."""
    seen = len(survey.pictures)
    if seen == survey.pages:
        return ()
    return (f"Only pages 1 to {seen:,} were looked at; --page chooses another.",)


def grid_score(grey: NDArray[np.uint8], dpi: float = SURVEY_DPI) -> float:
    """How periodic a page is in both directions, at distances that grids of ECGs have: 0 to 1.

    Args:
        grey: [height, width].
        dpi: of the page.
    """
    lags = range(round(_PITCHES[0] * dpi / _MILLIMETRES), round(_PITCHES[1] * dpi / _MILLIMETRES))
    dark = 255 - grey.astype(np.float32)
    # Ink hides the grid: what is darker than a grid line counts as one.
    dark = np.minimum(dark, np.float32(80))
    return min(_periodicity(dark.mean(axis=axis), lags) for axis in (0, 1))


def _periodicity(profile: NDArray[np.float32], lags: range) -> float:
    """The largest autocorrelation of a profile at these distances, without its slow part."""
    width = lags.stop
    if len(profile) < 3 * width:
        return 0.0
    kernel = np.ones(width, np.float32) / width
    fine = (profile - np.convolve(profile, kernel, "same"))[width:-width]
    power = float((fine**2).mean())
    if power < 1e-6:
        return 0.0
    return max(float((fine[:-lag] * fine[lag:]).mean()) / power for lag in lags)
