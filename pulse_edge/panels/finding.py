"""A finding that a report is searched for, and the phrases that name it."""

from __future__ import annotations

from dataclasses import dataclass

# Between a noun and what is said of it: "T waves are inverted".
COPULA = r"(?:is|are) (?:also |mildly |slightly |markedly )?"


@dataclass(frozen=True)
class Finding:
    """A row of the table.

    Attributes:
        name: as results name it.
        phrases: regular expressions, as `findings.py` has them.
        acronyms: whole words, in this case.
        broader: the finding that this one is a kind of. Who states the narrower one states the
            broader one, and who negates the broader one contradicts the narrower one.
    """

    name: str
    phrases: tuple[str, ...]
    acronyms: tuple[str, ...] = ()
    broader: str | None = None
