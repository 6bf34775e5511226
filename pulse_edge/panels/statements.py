"""Statements of a report: which findings its text states, negates, hedges or contradicts.

A statement is read from spans of the text, and a finding that the text does not mention is "not
stated", never absent. docs/panels.md has the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pulse_edge.panels.cues import Clause, Polarity
from pulse_edge.panels.findings import (
    BY_NAME,
    EXCLUSIVE,
    FINDINGS,
    broader_findings,
    find_phrases,
)

Status = Literal["stated", "negated", "uncertain", "conflict", "not stated"]
STATUSES: tuple[Status, ...] = get_args(Status)
Span = tuple[int, int]

# A full stop ends a sentence before white space only: "0.12 s" and "1.5 mV" are no ends.
_END = re.compile(r"(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)[.!](?=\s|$)|\?(?=\s|$)|[;\n\r]")


@dataclass(frozen=True)
class Statement:
    """What a text says about a finding.

    Args:
        finding: its name in the table of findings.
        status: `stated`; `negated`; `uncertain` (hedged, or the parser cannot tell whether a
            negation reaches it); `conflict` (the text contradicts itself); `not stated`.
        spans: characters (start, stop) of the text that the status was read from, in its order.
        source: id of the panel's question whose answer the text is; None for `not stated`.
    """

    finding: str
    status: Status
    spans: tuple[Span, ...] = ()
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, by docs/result.schema.json."""
        return asdict(self) | {"spans": [list(span) for span in self.spans]}


@dataclass(frozen=True)
class _Mention:
    finding: str
    polarity: Polarity
    span: Span


def parse_statements(text: str, source: str = "report") -> tuple[Statement, ...]:
    """What a report says about the findings of the table.

    Args:
        text: of the report.
        source: id of the question that it answers.

    Returns:
        One statement for each finding that the text mentions, in its order. Of the others it says
        nothing: `unstated` names them.
    """
    mentions = list(_mentions(text))
    own: dict[str, list[_Mention]] = {}
    for mention in mentions:
        own.setdefault(mention.finding, []).append(mention)
    counted = _with_broader(own)
    statuses = {name: _status([m.polarity for m in each]) for name, each in counted.items()}
    spans = {name: sorted({m.span for m in each}) for name, each in counted.items()}
    for names, extra in _contradictions(own, statuses, spans):
        for name in names:
            statuses[name] = "conflict"
            spans[name] = sorted({*spans[name], *extra})
    mentioned = sorted(statuses, key=lambda name: (spans[name], name))
    return tuple(Statement(name, statuses[name], tuple(spans[name]), source) for name in mentioned)


def unstated(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    """A statement "not stated" for each finding of the table that none of these is about."""
    mentioned = {statement.finding for statement in statements}
    return tuple(
        Statement(finding.name, "not stated")
        for finding in FINDINGS
        if finding.name not in mentioned
    )


def whole_sentences(text: str) -> str:
    """A text that was cut off, without its last sentence: that may have gone on "... is absent"."""
    ends = [match.end() for match in _END.finditer(text)]
    return text[: ends[-1]] if ends else ""


def sentences(text: str) -> Iterator[Span]:
    """Where the sentences of a text are."""
    start = 0
    for match in _END.finditer(text):
        yield start, match.end()
        start = match.end()
    if start < len(text):
        yield start, len(text)


def _mentions(text: str) -> Iterator[_Mention]:
    phrases = find_phrases(text)
    for start, stop in sentences(text):
        inside = [phrase for phrase in phrases if start <= phrase.start < stop]
        clause = Clause(
            text[start:stop], tuple((each.start - start, each.stop - start) for each in inside)
        )
        for index, phrase in enumerate(inside):
            polarity = clause.polarity(index)
            if polarity is not None:
                yield _Mention(phrase.finding.name, polarity, (phrase.start, phrase.stop))


def _with_broader(own: dict[str, list[_Mention]]) -> dict[str, list[_Mention]]:
    """The mentions of each finding, and those of narrower ones that affirm it.

    A narrower finding that is uncertain counts only if nothing states the broader one.
    """
    affirmed: dict[str, list[_Mention]] = {}
    for name, mentions in own.items():
        status = _status([mention.polarity for mention in mentions])
        if status == "negated":
            continue
        polarity: Polarity = "stated" if status == "stated" else "uncertain"
        for broader in broader_findings(BY_NAME[name]):
            affirmed.setdefault(broader.name, []).extend(
                _Mention(broader.name, polarity, mention.span) for mention in mentions
            )
    counted = {}
    for name in own.keys() | affirmed.keys():
        mentions = [*own.get(name, ()), *affirmed.get(name, ())]
        certain = any(mention.polarity == "stated" for mention in mentions)
        doubts = [m for m in affirmed.get(name, ()) if m.polarity == "uncertain"]
        counted[name] = [m for m in mentions if m not in doubts] if certain else mentions
    return counted


def _status(polarities: list[Polarity]) -> Status:
    kinds = set(polarities)
    if {"stated", "negated"} <= kinds:
        return "conflict"
    return polarities[0] if len(kinds) == 1 else "uncertain"


def _contradictions(
    own: dict[str, list[_Mention]], statuses: dict[str, Status], spans: dict[str, list[Span]]
) -> list[tuple[tuple[str, ...], list[Span]]]:
    """Names of findings that contradict others, with the spans of both."""
    found: list[tuple[tuple[str, ...], list[Span]]] = []
    for finding in FINDINGS:
        if statuses.get(finding.name) != "stated":
            continue
        for broader in broader_findings(finding):
            negations = [m.span for m in own.get(broader.name, ()) if m.polarity == "negated"]
            if negations:
                found.append(((finding.name,), negations))
    for pair in EXCLUSIVE:
        # What is hedged elsewhere does not take back what one sentence asserts.
        asserted = [any(m.polarity == "stated" for m in own.get(name, ())) for name in pair]
        if all(
            statuses.get(name) == "stated" or plainly
            for name, plainly in zip(pair, asserted, strict=True)
        ):
            found.append((pair, [span for name in pair for span in spans[name]]))
    return found
