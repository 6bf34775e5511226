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
_START = r"(?<![\w\-])"
_STOP = r"(?!\w|-like)"
_GROUP = 24  # phrases; the time of a search is least from 16 to 32

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
    found = [phrase for group in _groups() for phrase in group.find(text)]
    taken = bytearray(len(text))
    kept: list[Phrase] = []
    for phrase in sorted(found, key=lambda each: (each.start - each.stop, each.start)):
        if not any(taken[phrase.start : phrase.stop]):
            taken[phrase.start : phrase.stop] = b"\1" * (phrase.stop - phrase.start)
            kept.append(phrase)
    return sorted(kept, key=lambda each: each.start)


@dataclass(frozen=True)
class _PhraseGroup:
    """Patterns that are searched together, which is several times as fast as one by one.

    Attributes:
        places: matches where at least one of them does.
        patterns: one for each phrase: in one for all, a match would hide those that overlap it.
    """

    places: re.Pattern[str]
    patterns: tuple[tuple[Finding, re.Pattern[str]], ...]

    def find(self, text: str) -> Iterator[Phrase]:
        """What `finditer` of each pattern finds."""
        ends = [0] * len(self.patterns)
        place = self.places.search(text)
        while place:
            start = place.start()
            for index, (finding, pattern) in enumerate(self.patterns):
                match = pattern.match(text, start) if start >= ends[index] else None
                if match:
                    ends[index] = match.end()
                    yield Phrase(finding, start, match.end())
            place = self.places.search(text, start + 1)


@cache
def _groups() -> tuple[_PhraseGroup, ...]:
    rows = [(finding, words) for finding in FINDINGS for words in _of(finding)]
    groups = []
    for at in range(0, len(rows), _GROUP):
        group = rows[at : at + _GROUP]
        patterns = tuple((finding, re.compile(_START + words)) for finding, words in group)
        together = "|".join(words for _, words in group)
        groups.append(_PhraseGroup(re.compile(f"{_START}(?:{together})"), patterns))
    return tuple(groups)


def _of(finding: Finding) -> Iterator[str]:
    """Regular expressions of a finding's phrases, each to stand behind `_START`."""
    for phrase in finding.phrases:
        words = phrase.replace(" ", r"[ \-\u2010-\u2013]+")
        words = words.replace("]+?", "]*")  # `a ?b`: an optional space
        yield rf"(?i:(?:{words}){_STOP})"
    if finding.acronyms:
        listed = "|".join(map(re.escape, finding.acronyms))
        yield rf"(?:{listed}){_STOP}"
