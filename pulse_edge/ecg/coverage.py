"""How much of a recording a page can show."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pulse_edge.ecg.leads import LEADS, shown_names

PAGE_SECONDS = 10  # the longest that any page shows: 250 mm at 25 mm/s
_NOTICED = 0.1  # seconds; a shorter blank is under 2.5 mm of a page

# Names of aVR upside down. A hyphen and two minus signs occur.
_INVERTED = ("-avr", "\u2212avr", "\u2013avr")
_CABRERA = (
    "-aVR is aVR upside down, of the Cabrera order (aVL, I, -aVR, II, aVF, III); pages are drawn "
    "in the order I, II, III, aVR, aVL, aVF."
)

Masks = Mapping[str, NDArray[np.bool_]]


def drawn_samples(rate: float) -> int:
    """How many samples of a lead any page can show, with the one that ends its last line."""
    return math.ceil(PAGE_SECONDS * rate) + 1


def length_notes(seconds: float) -> tuple[str, ...]:
    """What to say of a recording that is not as long as a page: nothing, or a sentence."""
    if seconds > PAGE_SECONDS + _NOTICED:
        return (
            f"The recording lasts {seconds:.1f} s; a page shows at most the first "
            f"{PAGE_SECONDS} s.",
        )
    if seconds < PAGE_SECONDS - _NOTICED:
        return (f"The recording ends at {seconds:.1f} s; a page is blank from there.",)
    return ()


def coverage_notes(
    signals: NDArray[np.float32], leads: Sequence[str], rate: float, seconds: float
) -> tuple[str, ...]:
    """What a page of these signals will not show, a sentence each.

    Args:
        signals: what a page can show of the leads, mV; not finite where nothing was recorded.
        leads: a name for each row.
        rate: samples per second.
        seconds: length of the whole recording.
    """
    finite = {
        lead: np.isfinite(row)
        for lead, row in zip(leads, signals, strict=True)
        if lead in LEADS and np.isfinite(row).any()
    }
    notes = []
    if missing := [lead for lead in LEADS if lead not in finite]:
        notes.append(f"Not recorded: {' '.join(missing)}.")
    if others := [lead for lead in leads if lead not in LEADS]:
        notes.append(f"Found but not drawn: {shown_names(others)}.")
        if any(lead.lower() in _INVERTED for lead in others):
            notes.append(_CABRERA)
    if parts := list(_parts(finite, rate, min(seconds, PAGE_SECONDS))):
        notes.append(f"Recorded in part: {'; '.join(parts)}.")
    if gaps := [lead for lead, mask in finite.items() if _gap(mask) > _NOTICED * rate]:
        notes.append(f"With gaps: {' '.join(gaps)}.")
    return (*notes, *length_notes(seconds))


def _parts(finite: Masks, rate: float, end: float) -> Iterator[str]:
    """Leads that begin late or end early, those of the same time together."""
    spans: dict[tuple[float, float], list[str]] = {}
    for lead, mask in finite.items():
        places = np.flatnonzero(mask)
        first, last = places[0] / rate, (places[-1] + 1) / rate
        if first > _NOTICED or last < end - _NOTICED:
            spans.setdefault((round(first, 1), round(last, 1)), []).append(lead)
    for (first, last), leads in spans.items():
        yield f"{' '.join(leads)} from {first:.1f} to {last:.1f} s"


def _gap(mask: NDArray[np.bool_]) -> int:
    """Samples that are missing between a lead's first and last."""
    places = np.flatnonzero(mask)
    return int(places[-1] - places[0] + 1 - places.size)
