"""A recording and how its page looks: what a model is asked about where it is not an image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from pulse_edge.ecg import drawing
from pulse_edge.ecg.coverage import PAGE_SECONDS
from pulse_edge.ecg.layout import LAYOUTS, PULSE_STYLE, TRACE_MM, PageStyle
from pulse_edge.ecg.lettering import header_notes
from pulse_edge.ecg.recording import Recording
from pulse_edge.ecg.spacing import Arrangement, arrange

ARRAY = "array"  # the format of signals that are of no file


@dataclass(frozen=True, eq=False)
class DrawnRecording:
    """A recording on a page of a style. `Model.ask` takes it as its image.

    Attributes:
        recording: what is drawn.
        style: how the page looks. A plain `Recording` is drawn in the default one, which is the
            layout that PULSE was trained on.
        header: lines of text above the traces.
    """

    recording: Recording
    style: PageStyle = PULSE_STYLE
    header: str | None = None

    @cached_property
    def arrangement(self) -> Arrangement:
        """Where the leads stand."""
        return arrange(self.recording, self.style, bool(self.header))

    @property
    def seconds(self) -> float:
        """How much of the recording its page shows."""
        return min(TRACE_MM / self.style.speed, self.recording.duration)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of the recording and of its page, a sentence each."""
        page = (*self._speed_notes(), *self.arrangement.notes, *header_notes(self.header))
        return tuple(dict.fromkeys((*self.recording.notes, *page)))

    @property
    def format(self) -> str:
        """Of the recording's file; `ARRAY` without one."""
        return self.recording.file.format if self.recording.file else ARRAY

    @property
    def facts(self) -> dict[str, Any]:
        """What the provenance of an answer says of it, ready for JSON."""
        recording, style = self.recording, self.arrangement.style
        file = recording.file
        strips = LAYOUTS[style.layout].strips if style.strips is None else style.strips
        return recording.facts | {
            "format": self.format,
            "sha256": file.sha256 if file else _signals_digest(recording),
            "bytes": file.size if file else None,
            "seconds": recording.duration,
            "leads": list(recording.leads),
            "layout": style.layout,
            "strips": list(strips),
            "speed_mm_s": style.speed,
            "gain_mm_mv": style.gain,
            "drawn_s": self.seconds,
            "width_in": style.width_in,
            "height_in": style.height_in,
            "dpi": style.dpi,
            "header": self.header,
        }

    def draw(self) -> Image.Image:
        """The page. Raises like `draw_page`."""
        return drawing.draw_page(self.recording, self.style, self.header)

    def _speed_notes(self) -> Iterator[str]:
        full = TRACE_MM / self.style.speed
        if full < PAGE_SECONDS and self.recording.duration > full:
            yield (
                f"At {self.style.speed:g} mm/s the page shows the first {full:g} s of "
                f"{self.recording.duration:.1f} s."
            )


def _signals_digest(recording: Recording) -> str:
    """Of the rate, the leads' names, and the samples as little-endian float32."""
    digest = hashlib.sha256(f"{recording.rate!r} {' '.join(recording.leads)} ".encode())
    digest.update(recording.signals.astype("<f4").tobytes())
    return digest.hexdigest()
