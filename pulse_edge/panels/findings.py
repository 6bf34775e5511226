"""The table of findings that a report is searched for, and the search.

A phrase is a regular expression over whole words, in any case; a space in it stands for spaces or
hyphens. Acronyms are matched in the case that is written here, because "AF" is a finding and "af"
is not. Of phrases that overlap, the longest counts: "LAFB" is no "AF", and "incomplete left bundle
branch block" is no "left bundle branch block".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from pulse_edge.panels.finding import Finding
from pulse_edge.panels.rhythm_findings import CONDUCTION_FINDINGS, ECTOPY_FINDINGS, RHYTHM
from pulse_edge.panels.waveform_findings import AXIS, CHAMBERS, INFARCTION, OVERALL, REPOLARIZATION

FINDINGS = (
    *RHYTHM,
    *CONDUCTION_FINDINGS,
    *ECTOPY_FINDINGS,
    *REPOLARIZATION,
    *INFARCTION,
    *CHAMBERS,
    *AXIS,
    *OVERALL,
)
BY_NAME = {finding.name: finding for finding in FINDINGS}

# Findings of which a report can state one at most. Who states two of a group contradicts himself.
EXCLUSIVE = (
    ("normal ECG", "abnormal ECG"),
    ("normal ECG", "otherwise normal ECG"),
    ("normal axis", "left axis deviation"),
    ("normal axis", "right axis deviation"),
    ("left axis deviation", "right axis deviation"),
)


@dataclass(frozen=True)
class Phrase:
    """Where a text holds a phrase of a finding: characters `start` to `stop`."""

    finding: Finding
    start: int
    stop: int


def broader_findings(finding: Finding) -> Iterator[Finding]:
    """The findings that this one is a kind of, nearest first."""
    while finding.broader is not None:
        finding = BY_NAME[finding.broader]
        yield finding


def find_phrases(text: str) -> list[Phrase]:
    """The phrases in a text, in its order. None overlaps another; the longest wins."""
    found = [
        Phrase(finding, match.start(), match.end())
        for finding, pattern in _patterns()
        for match in pattern.finditer(text)
    ]
    taken = bytearray(len(text))
    kept: list[Phrase] = []
    for phrase in sorted(found, key=lambda each: (each.start - each.stop, each.start)):
        if not any(taken[phrase.start : phrase.stop]):
            taken[phrase.start : phrase.stop] = b"\1" * (phrase.stop - phrase.start)
            kept.append(phrase)
    return sorted(kept, key=lambda each: each.start)


@cache
def _patterns() -> tuple[tuple[Finding, re.Pattern[str]], ...]:
    """A pattern for each phrase: in one for all, a match would hide those that overlap it."""
    return tuple((finding, pattern) for finding in FINDINGS for pattern in _of(finding))


def _of(finding: Finding) -> Iterator[re.Pattern[str]]:
    for phrase in finding.phrases:
        words = phrase.replace(" ", r"[ \-\u2010-\u2013]+")
        words = words.replace("]+?", "]*")  # `a ?b`: an optional space
        yield re.compile(rf"(?<![\w\-])(?:{words})(?!\w|-like)", re.I)
    if finding.acronyms:
        listed = "|".join(map(re.escape, finding.acronyms))
        yield re.compile(rf"(?<![\w\-])(?:{listed})(?!\w|-like)")
