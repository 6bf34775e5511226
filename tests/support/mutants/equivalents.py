"""Mutants that change nothing which a test could see, each with its reason."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from support.mutants.operators import Mutant

FILE = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """A row of `equivalent.toml`. It names the line by its text, so that it stays true when lines
    move.

    Attributes:
        file: as mutants name it.
        line: the text of the line.
        changes: of that line; "*" stands for all.
        reason: why no test can see it.
    """

    file: str
    line: str
    changes: tuple[str, ...]
    reason: str

    def covers(self, mutant: Mutant) -> bool:
        """Whether it speaks of this mutant."""
        same = (mutant.file, mutant.text) == (self.file, self.line)
        return same and (mutant.change in self.changes or "*" in self.changes)


def equivalents() -> tuple[Equivalent, ...]:
    """All rows."""
    rows = tomllib.loads(FILE.read_text("utf-8")).get("equivalent", [])
    return tuple(
        Equivalent(row["file"], row["line"], tuple(row["changes"]), row["reason"]) for row in rows
    )
